"""Connections as uvicorn has them, but that nobody can hold open by silence or half a request."""

import h11
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from library.serving.refusals import RefusedError


class Connection(H11Protocol):
    """Closed where no whole head of a request comes in `head_secs`; refused above `most` at once.

    Uvicorn's own time-out runs from an answer to the next byte, and its refusal is no JSON.
    """

    def __init__(self, *arguments, head_secs, most, **options):
        super().__init__(*arguments, **options)
        self._head_secs, self._most = head_secs, most
        self._waiting = None

    def connection_made(self, transport):
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc):
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop_waiting()

    def data_received(self, data):
        """Take in more of a request."""
        super().data_received(data)
        self._watch()

    def handle_events(self):
        """Answer each request that is there."""
        is_full = len(self.connections) > self._most
        self.app = _refuse if is_full else self.config.loaded_app
        super().handle_events()

    def on_response_complete(self):
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._watch()

    def _watch(self):
        """Let the time run where the other side is to go on, from when that began."""
        is_theirs = self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE
        if not is_theirs:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self._head_secs, self.transport.close)

    def _stop_waiting(self):
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


async def _refuse(scope, receive, send):
    refusal = RefusedError("busy", "too many connections; try again later")
    headers = {"Connection": "close", "Retry-After": "1"}
    await JSONResponse(refusal.body, refusal.status, headers)(scope, receive, send)
