"""The ASGI application: `/`, `/predict` and `/health`; errors are JSON, too."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from library.serving.model import ServedModel
from library.serving.page import content_security_policy, make_page
from library.serving.request_error import RequestError
from library.serving.uploads import RequestLimits, UploadMemory, read_upload

# Of every response.
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HTTP_CODES = {404: "not_found", 405: "wrong_method"}

logger = logging.getLogger(__name__)


class InferenceQueue:
    """Runs one function at a time in a thread, while a few others wait.

    Memory stays bounded, and the event loop stays free to answer other requests.
    """

    def __init__(self, max_waiting: int) -> None:
        self._places = asyncio.Semaphore(max_waiting + 1)
        self._worker = anyio.CapacityLimiter(1)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return function(*args). Raises RequestError (busy) if too many wait already."""
        if self._places.locked():
            raise RequestError("busy", "too many images are waiting; try again later")
        # A place is free again when the work is done, even if the client disconnected before.
        async with self._places:
            return await anyio.to_thread.run_sync(function, *args, limiter=self._worker)


def make_application(
    model: ServedModel,
    limits: RequestLimits,
    hosts: Sequence[str] = ("*",),
    page: str | None = None,
) -> Starlette:
    """Return the ASGI application.

    Args:
        model: The model that answers.
        limits: What is accepted.
        hosts: Host names that the server answers to: otherwise a web site could make its own name
            point here, and its pages could read the answers.
        page: HTML to show instead of the usual page.
    """
    html = page or make_page(model.description, limits.upload_bytes)
    queue = InferenceQueue(limits.waiting)
    memory = UploadMemory(limits)

    async def show_page(request: Request) -> Response:
        return html_response(html)

    async def show_health(request: Request) -> Response:
        return json_response(
            {"status": "ok", "network": model.name, "classes": list(model.classes)}
        )

    async def predict(request: Request) -> Response:
        check_origin(request)
        with memory.share() as share:
            content = await read_upload(request, limits, share)
            class_name = request.query_params.get("explain")
            if class_name is None:
                return json_response(await queue.run(model.classify, content))
            return json_response(await queue.run(model.explain, content, class_name))

    routes = [
        Route("/", show_page),
        Route("/health", show_health),
        Route("/predict", predict, methods=["POST"]),
    ]
    return make_starlette(routes, hosts)


def make_starlette(routes: Sequence[Route], hosts: Sequence[str]) -> Starlette:
    """Return an ASGI application whose errors are JSON.

    Args:
        routes: What it answers.
        hosts: Host names that it answers to.
    """
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
        exception_handlers={
            RequestError: _refuse,
            HTTPException: _refuse_http,
            ClientDisconnect: _ignore,
            Exception: _fail,
        },
    )


async def _refuse(request: Request, error: Any) -> Response:
    headers = {"Retry-After": "1"} if error.code == "busy" else {}
    if error.code in ("too_slow", "too_large"):
        # The rest of the body may not be read, so the connection cannot be used again.
        headers["Connection"] = "close"
    return json_response(error.body, error.status, headers)


async def _refuse_http(request: Request, error: Any) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = {"error": _HTTP_CODES.get(error.status_code, "bad_form"), "message": message}
    return json_response(body, error.status_code, error.headers)


async def _ignore(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # The client is gone.


async def _fail(request: Request, error: Exception) -> Response:
    logger.error(f"{request.method} {request.url.path}: {type(error).__name__}: {error}")
    failure = RequestError("failed", "the server failed to answer; see its log")
    return json_response(failure.body, failure.status)


def check_origin(request: Request) -> None:
    """Refuse requests from another web site's pages, which nobody asked for."""
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise RequestError("other_origin", f"pages of {origin} must not use this server")


def html_response(html: str, images: str = "data:") -> Response:
    """Return the response of a page that runs no script but its own.

    Args:
        html: The page.
        images: Where its images come from, as a Content-Security-Policy names it.
    """
    policy = {"Content-Security-Policy": content_security_policy(html, images)}
    return HTMLResponse(html, headers={**HEADERS, **policy})


def json_response(body: object, status: int = 200, headers: Any = None) -> Response:
    """Return a response of JSON."""
    return JSONResponse(body, status, headers={**HEADERS, **(headers or {})})
