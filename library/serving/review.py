"""The ASGI application of a page where a person decides about images; each decision is saved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from library.errors import UserError, printable
from library.serving.application import (
    HEADERS,
    check_origin,
    html_response,
    json_response,
    make_starlette,
)
from library.serving.request_error import RequestError

# A decision with the names of a thousand classes is smaller.
_MAX_REQUEST_BYTES = 1 << 18


class Review(Protocol):
    """What is reviewed. Its methods are called in one thread at a time.

    Attributes:
        folder: Its folder `thumbnails` holds the images.
    """

    folder: Path

    def render(self) -> str:
        """Return the page as HTML."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what was decided, as a JSON object."""
        ...

    def decide(self, request: Any) -> dict[str, Any]:
        """Save a decision, and return the state after it, with a `message` if it was refused.

        Raises:
            ValueError: The request makes no sense.
            UserError: It could not be saved.
        """
        ...


def make_review_application(review: Review, hosts: Sequence[str]) -> Starlette:
    """Return the ASGI application: `/`, `/decisions` and `/thumbnails/<name>`.

    Args:
        review: What is reviewed.
        hosts: Host names that the server answers to; see `make_application`.
    """
    worker = anyio.CapacityLimiter(1)

    async def show_page(request: Request) -> Response:
        html = await anyio.to_thread.run_sync(review.render, limiter=worker)
        return html_response(html, "'self' data:")

    async def show_thumbnail(request: Request) -> Response:
        name = request.path_params["name"]
        path = review.folder / "thumbnails" / name
        if name.startswith(".") or "\0" in name or not path.is_file():
            raise HTTPException(404, "there is no such image")
        return FileResponse(path, headers=HEADERS)

    async def show_decisions(request: Request) -> Response:
        return json_response(await anyio.to_thread.run_sync(review.state, limiter=worker))

    async def decide(request: Request) -> Response:
        decision = await _read_json(request)
        try:
            state = await anyio.to_thread.run_sync(review.decide, decision, limiter=worker)
        except ValueError as error:
            raise RequestError("bad_decision", str(error)) from None
        return json_response(state, 409 if "message" in state else 200)

    application = make_starlette(
        [
            Route("/", show_page),
            Route("/thumbnails/{name}", show_thumbnail),
            Route("/decisions", show_decisions),
            Route("/decisions", decide, methods=["POST"]),
        ],
        hosts,
    )
    application.add_exception_handler(UserError, _refuse)
    return application


async def _refuse(request: Request, error: Exception) -> Response:
    code = "failed" if request.method == "GET" else "not_saved"
    failure = RequestError(code, printable(error))
    return json_response(failure.body, failure.status)


async def _read_json(request: Request) -> Any:
    """Return the JSON value of a request of the page itself. Raises RequestError for any other.

    A page of another site can send JSON only after it has asked for permission, which is refused.
    """
    check_origin(request)
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RequestError("other_origin", "pages of other sites must not decide")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestError("wrong_type", "send a decision as application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_REQUEST_BYTES:
            raise RequestError("too_large", "the decision is too large")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise RequestError("bad_decision", "the decision is not valid JSON") from None
