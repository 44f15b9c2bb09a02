"""Listen on a socket and run uvicorn until a signal arrives."""

import contextlib
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from library.errors import SettingsError, StoppedError, UserError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

# The modules that the server needs, and their packages.
_PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def check_packages() -> None:
    """Raise SettingsError if a package of the extra `serve` is missing."""
    missing = [
        package for module, package in _PACKAGES.items() if not importlib.util.find_spec(module)
    ]
    if missing:
        raise SettingsError(
            f"serve needs {', '.join(missing)}: pip install {' '.join(missing)} "
            "(the extra serve of pyproject.toml)"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 chooses a free one.

    Raises:
        SettingsError: The host is not a name or address of this machine.
        UserError: The port cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise SettingsError(f"host {host!r} is not a name or address of this machine") from None
    try:
        listening = socket.create_server((host, port), family=family)
        # Connections inherit it. asyncio sets it only where the socket names TCP as its protocol;
        # without it, each response waits 40 ms for the client to acknowledge the header.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return listening
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"cannot listen on port {port} of {host}: {reason}; choose another --port or --host"
        ) from None


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Return the host names that a server on `host` answers to: any, except on loopback."""
    return ("localhost", "127.0.0.1", "[::1]", host) if is_loopback(host) else ("*",)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def socket_url(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve_forever(application: "Starlette", listening: socket.socket) -> None:
    """Serve until a signal arrives. Raises StoppedError (130 for SIGINT, 143 for SIGTERM)."""
    server = make_server(application)
    with _stopped_by_signals():
        server.run(sockets=[listening])


def make_server(application: "Starlette") -> "uvicorn.Server":
    """Return a uvicorn server that logs nothing: the application logs what matters."""
    import uvicorn

    class Server(uvicorn.Server):
        """Says that it stops, because it waits for the requests that it works on."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                logger.info("Stopping; press again to quit now")
            super().handle_exit(sig, frame)

    return Server(
        uvicorn.Config(
            application,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            # Of the parsers and loops that uvicorn can use, these are always installed.
            http="h11",
            loop="asyncio",
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
    )


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise StoppedError for the signal that uvicorn raises again after it has shut down."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedError("The server was stopped.", 128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # A signal that is raised again is no second one.
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
