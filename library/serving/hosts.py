"""Requests for a name that is not the server's own are refused before anything else is looked at.

Else a stranger's page, whose name was made to point here, could ask and read the answer.
"""

import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from library.serving.refusals import RefusedError

# An address of IPv6 is in brackets; what follows the colon is a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:\[\]@/]+)(:\d*)?")


class OnlyHosts:
    """ASGI middleware that lets through what is for one of the names `hosts`; "*": for any."""

    def __init__(self, app, hosts):
        self._app = app
        self._hosts = {each.lower() for each in hosts}

    async def __call__(self, scope, receive, send):
        """Answer a request, or hand it on."""
        answer = self._app
        if scope["type"] == "http" and "*" not in self._hosts:
            host = Headers(scope=scope).get("host", "")
            if _name_of(host) not in self._hosts:
                refusal = RefusedError("wrong_host", f"this server is not called {host!r}")
                answer = JSONResponse(refusal.body, refusal.status)
        await answer(scope, receive, send)


def _name_of(host):
    """Return the name in a Host header, without the port; None if it makes no sense."""
    match = _HOST.fullmatch(host)
    return match[1].lower() if match else None
