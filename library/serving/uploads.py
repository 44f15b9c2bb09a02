"""Read the bytes of one image from a request, within limits of size and time."""

import asyncio
import logging
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

# It would log every malformed form, which the response reports already.
logging.getLogger("python_multipart").disabled = True


@dataclass(frozen=True)
class RequestLimits:
    """What the server accepts.

    Attributes:
        upload_megabytes: Largest body of a request.
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


async def read_upload(request: Request, limits: RequestLimits) -> bytes:
    """Return the image in a POST request: the body itself, or a file in a form.

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
    limited = Request(request.scope, _limit_size(request.receive, limits))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            content = await (_read_form(limited) if is_form else limited.body())
    except TimeoutError:
        raise RequestError(
            "too_slow", f"the upload took longer than {limits.upload_seconds:g} seconds"
        ) from None
    if not content:
        raise RequestError("no_image", "the upload is empty")
    return content


def _limit_size(receive: Receive, limits: RequestLimits) -> Receive:
    """Return a `receive` that raises RequestError at the end of a body that is too large."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        while True:
            message = await receive()
            total += len(message.get("body", b""))
            if total <= limits.upload_bytes:
                return message
            if not message.get("more_body", False) or total > _DROPPED * limits.upload_bytes:
                raise _too_large(limits)

    return limited


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
