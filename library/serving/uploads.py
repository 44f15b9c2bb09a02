"""A request's body → the bytes of one image, within limits of size and time."""

import asyncio
import logging
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from library.serving.refusals import RefusedError

# What curl says of any --data-binary; contents decide anyway.
_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
# It would log each bad form, which whoever sent it is told of.
logging.getLogger("python_multipart").disabled = True
# A body that is too large is read on, and dropped, up to so many times the limit: whoever is cut
# off while sending never sees the answer.
_DROPPED = 4


@dataclass(frozen=True)
class Limits:
    """What an upload may be, and how long it may take."""

    megabytes: float = 20
    seconds: float = 30

    @property
    def bytes(self):
        """How many bytes a body may have."""
        return int(self.megabytes * 1e6)


async def read_upload(request, limits):
    """Return the bytes of the image in a POST: the body itself, or a file in a form.

    Raises RefusedError, ClientDisconnect.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not is_form and kind not in _RAW and not kind.startswith("image/"):
        raise RefusedError(
            "wrong_type", f"send an image, or a form with a file (multipart/form-data), not {kind}"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > _DROPPED * limits.bytes:
        raise _too_large(limits)
    limited = Request(request.scope, _limited(request.receive, limits))
    try:
        async with asyncio.timeout(limits.seconds):
            content = await (_file_in_form(limited) if is_form else limited.body())
    except TimeoutError:
        raise RefusedError(
            "too_slow", f"the upload took longer than {limits.seconds:g} seconds"
        ) from None
    if not content:
        raise RefusedError("no_image", "the upload is empty")
    return content


def _limited(receive, limits):
    """Give `receive`, which raises RefusedError instead of the last part of too large a body."""
    total = 0

    async def limited():
        nonlocal total
        while True:
            message = await receive()
            total += len(message.get("body", b""))
            if total <= limits.bytes:
                return message
            if not message.get("more_body", False) or total > _DROPPED * limits.bytes:
                raise _too_large(limits)

    return limited


def _too_large(limits):
    return RefusedError("too_large", f"the upload has more than {limits.megabytes:g} MB")


async def _file_in_form(request):
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
    except (HTTPException, FormParserError) as error:
        reason = getattr(error, "detail", None) or error
        raise RefusedError("bad_form", f"the form can't be read: {reason}") from None
    raise RefusedError("no_image", "the form has no file")
