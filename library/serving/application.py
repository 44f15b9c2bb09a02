"""The requests that the server answers: `/`, `/predict`, `/health`; all else is refused in JSON."""

import contextlib
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from library.serving.hosts import OnlyHosts
from library.serving.refusals import RefusedError
from library.serving.serving_page import make_page, policy_of
from library.serving.uploads import read_upload

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_WORDS = {404: "not_found", 405: "wrong_method"}


def make_application(model, limits, turns, report, hosts=("*",), page=None):
    """Return the ASGI application around a ServedModel.

    `limits` are Limits of an upload, `turns` are Turns at the network. `hosts` are the names that
    the server answers to.
    `page` is an HTML text to show instead of the usual one.
    """
    page = page or make_page(model.subject, limits.bytes)

    async def show_page(request):
        policy = {"Content-Security-Policy": policy_of(page)}
        return HTMLResponse(page, headers={**_HEADERS, **policy})

    async def tell_health(request):
        return _json({"status": "ok", "network": model.name, "classes": list(model.classes)})

    async def predict(request):
        _check_origin(request)
        content = await read_upload(request, limits)
        wanted = request.query_params.get("explain")
        if wanted is None:
            return _json(await turns.take(model.answer, content))
        return _json(await turns.take(model.explain, content, wanted))

    async def refuse(request, error):
        headers = {"Retry-After": "1"} if error.word == "busy" else {}
        # What is left of the body is not read, so the connection can't be used again.
        headers |= {"Connection": "close"} if error.status in (408, 413) else {}
        return _json(error.body, error.status, headers)

    async def refuse_http(request, error):
        word = _WORDS.get(error.status_code, "bad_form")
        text = f"{request.method} {request.url.path}: {error.detail}"
        body = {"error": word, "message": text}
        return _json(body, error.status_code, error.headers or {})

    async def fail(request, error):
        report(f"{request.method} {request.url.path} failed: {type(error).__name__}: {error}")
        refusal = RefusedError("failed", "the server could not answer; its log says more")
        return _json(refusal.body, refusal.status)

    async def gone(request, error):
        return Response(status_code=400)  # Nobody is there to read it.

    @contextlib.asynccontextmanager
    async def lifespan(application):
        yield
        turns.close()

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/health", tell_health),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[Middleware(OnlyHosts, hosts=hosts)],
        exception_handlers={
            RefusedError: refuse,
            HTTPException: refuse_http,
            ClientDisconnect: gone,
            Exception: fail,
        },
        lifespan=lifespan,
    )


def _check_origin(request):
    """Refuse what another site's page sends by itself: it would cost time, unasked."""
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise RefusedError("other_origin", f"pages of {origin} may not ask here")


def _json(body, status=200, headers=None):
    return JSONResponse(body, status, headers={**_HEADERS, **(headers or {})})
