"""Where the server listens, and how it starts and ends."""

import contextlib
import functools
import importlib.util
import ipaddress
import os
import signal
import socket

from library.errors import SettingsError, StoppedError, UserError

_PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
# Connections at once; whoever comes later is refused at once (503).
_CONNECTIONS = 64
# The time that a request has to be named whole, without its body.
_HEAD_SECS = 10


def check_packages():
    """Raise SettingsError if a package of the extra `serve` is missing."""
    missing = [name for each, name in _PACKAGES.items() if not importlib.util.find_spec(each)]
    if missing:
        raise SettingsError(
            f"serve needs {', '.join(missing)}: pip install {' '.join(missing)} "
            "(the extra serve of pyproject.toml)"
        )


def open_socket(host, port):
    """Return a socket that listens; port 0 takes a free one. Raises UserError, SettingsError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise SettingsError(f"host {host!r} is no name or address of this machine") from None
    try:
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        reason = os.strerror(error.errno)
        raise UserError(
            f"can't listen on port {port} of {host}: {reason}; choose another --port or --host"
        ) from None


def hosts_of(host):
    """Return the names that a server on `host` answers to: any but on loopback."""
    return ("localhost", "127.0.0.1", "[::1]", "::1", host) if is_loopback(host) else ("*",)


def is_loopback(host):
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listening):
    """Return the URL of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve_forever(application, listening):
    """Answer until a signal comes. Raises StoppedError (130 for SIGINT, 143 for SIGTERM)."""
    server = make_server(application)
    with _ended_by_signals():
        server.run(sockets=[listening])


def make_server(application, connections=_CONNECTIONS, head_secs=_HEAD_SECS):
    """Return uvicorn's server, which logs nothing: what matters is reported by the application."""
    import uvicorn

    from library.serving.connections import Connection

    return uvicorn.Server(
        uvicorn.Config(
            application,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            # Of the parsers and loops that there may be, those that are always there.
            http=functools.partial(Connection, head_secs=head_secs, most=connections),
            loop="asyncio",
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
    )


@contextlib.contextmanager
def _ended_by_signals():
    """Turn the signal that uvicorn hands on when it has ended into a StoppedError."""

    def stop(number, frame):
        raise StoppedError("the server was stopped", 128 + number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
