"""Read the bytes of one image from a request, within limits of size and time."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from library.serving.request_error import RequestError

# Content types of a body that is the image itself; the last one is what curl --data-binary sends.
_RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
# A body over the limit is read and dropped up to this multiple of it, because a client whose
# connection is closed while it sends never sees the response.
_DROPPED = 4
# All uploads together may take this many times the largest one.
_UPLOADS_IN_MEMORY = 10

# It would log every malformed form, which the response reports already.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class RequestLimits:
    """What the server accepts.

    Attributes:
        upload_megabytes: Largest body of a request; all together have at most ten times as much.
        upload_seconds: Longest time that a body may take to arrive.
        waiting: How many uploads may wait while another one is classified.
    """

    upload_megabytes: float
    upload_seconds: float
    waiting: int

    @property
    def upload_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return int(self.upload_megabytes * 1e6)


class UploadMemory:
    """The bytes that all uploads together may still take."""

    def __init__(self, limits: RequestLimits) -> None:
        self.free = _UPLOADS_IN_MEMORY * limits.upload_bytes

    @contextmanager
    def share(self) -> Iterator["MemoryShare"]:
        """Yield the share of one upload, given back at the end of the block."""
        share = MemoryShare(self)
        try:
            yield share
        finally:
            share.release()


class MemoryShare:
    """The bytes that one upload takes. They are taken as they arrive: a slow client holds few."""

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self._taken = 0

    def take(self, size: int) -> None:
        """Take more bytes. Raises RequestError (busy) if that many are not free."""
        if size > self._memory.free:
            raise RequestError("busy", "the uploads of others take all memory; try again later")
        self._memory.free -= size
        self._taken += size

    def release(self) -> None:
        """Give all bytes back."""
        self._memory.free += self._taken
        self._taken = 0


async def read_upload(request: Request, limits: RequestLimits, memory: MemoryShare) -> bytes:
    """Return the image in a POST request: the body itself, or a file in a form.

    Args:
        request: The request.
        limits: What is accepted.
        memory: Where the bytes of the body are taken from.

    Raises:
        RequestError: The request has no image, is too large, too slow, or malformed.
        ClientDisconnect: The client is gone.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = content_type == "multipart/form-data"
    if not (is_form or content_type in _RAW_TYPES or content_type.startswith("image/")):
        raise RequestError(
            "wrong_type",
            f"send an image, or a form with a file (multipart/form-data), not {content_type}",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > _DROPPED * limits.upload_bytes:
        raise _too_large(limits)
    body = _LimitedBody(request.receive, limits, memory)
    limited = Request(request.scope, body.receive)
    content, refusal = b"", None
    try:
        async with asyncio.timeout(limits.upload_seconds):
            try:
                content = await (_read_form(limited) if is_form else limited.body())
            except RequestError as error:
                # Without the traceback, whose frames hold what has arrived.
                refusal = error.with_traceback(None)
            if refusal:
                await body.drop_rest()
                raise refusal
    except TimeoutError:
        raise RequestError(
            "too_slow", f"the upload took longer than {limits.upload_seconds:g} seconds"
        ) from None
    if not content:
        raise RequestError("no_image", "the upload is empty")
    return content


class _LimitedBody:
    """The body of a request, refused with RequestError where it is too large."""

    def __init__(self, receive: Receive, limits: RequestLimits, memory: MemoryShare) -> None:
        self._receive_any = receive
        self._limits = limits
        self._memory = memory
        self._size = 0
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next part. Raises RequestError at the first one that is too much."""
        message = await self._receive()
        if self._size > self._limits.upload_bytes:
            raise _too_large(self._limits)
        self._memory.take(len(message.get("body", b"")))
        return message

    async def drop_rest(self) -> None:
        """Read what is left, within reason, so that the client sees the response."""
        self._memory.release()
        while not self._is_complete and self._size <= _DROPPED * self._limits.upload_bytes:
            await self._receive()

    async def _receive(self) -> Message:
        message = await self._receive_any()
        self._size += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        return message


def _too_large(limits: RequestLimits) -> RequestError:
    return RequestError("too_large", f"the upload has more than {limits.upload_megabytes:g} MB")


async def _read_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
    except HTTPException as error:
        raise RequestError("bad_form", f"the form cannot be read: {error.detail}") from None
    except FormParserError as error:
        raise RequestError("bad_form", f"the form cannot be read: {error}") from None
    raise RequestError("no_image", "the form has no file")
