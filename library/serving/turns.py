"""One piece of work at a time, in a thread of its own, while a few others wait their turn."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from library.serving.refusals import RefusedError


class Turns:
    """Keeps memory and time bounded: one image is decoded and looked at, `most_waiting` wait.

    The event loop stays free meanwhile to answer others.
    """

    def __init__(self, most_waiting):
        self._places = BoundedSemaphore(most_waiting + 1)
        self._thread = ThreadPoolExecutor(1, "network")

    async def take(self, function, *arguments):
        """Return function(*arguments) when its turn has come. Raises RefusedError (busy)."""
        if not self._places.acquire(blocking=False):
            raise RefusedError("busy", "too many pictures wait already: try again soon")
        work = self._thread.submit(function, *arguments)
        # Whoever hangs up gives the place free when the work is done, not before.
        work.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(work)

    def close(self):
        """Finish what is being done, and drop what waits."""
        self._thread.shutdown(wait=True, cancel_futures=True)
