"""The server on real sockets, and the command `serve`."""

import io
import os
import re
import signal
import socket
import threading
import time

import pytest
from PIL import Image

import run
from library.errors import SettingsError, UserError, run_main
from library.serving import server
from library.serving.uploads import RequestLimits
from tests.conftest import COLORS, ROOT
from tests.helpers.serving import EchoModel, RunningServer, ask

HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPLOAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc"


def connect(running, content=b""):
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    connection.sendall(content)
    return connection


@pytest.fixture(scope="module")
def running():
    with RunningServer(EchoModel()) as each:
        yield each


def test_server_answers_and_refuses_a_large_upload(running):
    assert ask(running.port, b"abc") == (200, {"bytes": 3})
    # Larger than the limit, and than the buffer of a socket: the client sees the answer all the
    # same.
    status, body = ask(running.port, b"x" * 1_900_000)
    assert (status, body["error"]) == (413, "too_large")


def test_answers_do_not_wait_for_acknowledgments():
    # Otherwise, each takes 40 ms.
    with (
        server.open_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_server_holds_a_bounded_number_of_bytes():
    class WaitingModel(EchoModel):
        def classify(self, content):
            may_end.wait(60)
            return super().classify(content)

    may_end, found = threading.Event(), []
    with RunningServer(WaitingModel(), limits=RequestLimits(0.5, 60, 64)) as running:
        threads = [
            threading.Thread(target=lambda: found.append(ask(running.port, b"x" * 490_000)))
            for _ in range(20)
        ]
        for each in threads:
            each.start()
        while len(found) < 10:
            time.sleep(0.01)
        may_end.set()
        for each in threads:
            each.join()
    # Each that is refused hears of it, although it had more to send.
    refused = [body["error"] for status, body in found if status == 503]
    assert refused == ["busy"] * 10
    assert [body for status, body in found if status == 200] == [{"bytes": 490_000}] * 10


def test_server_refuses_other_protocols(running):
    with connect(running, b"\x16\x03\x01 hello\r\n\r\n") as connection:
        assert b"400" in connection.recv(999)


@pytest.mark.parametrize("content", [b"", HEAD, UPLOAD], ids=["silent", "half a head", "upload"])
def test_server_answers_others_while_clients_are_silent(running, content):
    silent = [connect(running, content) for _ in range(70)]
    assert ask(running.port, b"abc") == (200, {"bytes": 3})
    for connection in silent:
        connection.close()
    assert ask(running.port, b"abc") == (200, {"bytes": 3})


def test_server_ends_a_slow_upload(running):
    with connect(running, UPLOAD) as slow:
        assert b"408" in slow.recv(99)


def test_server_waits_for_a_slow_model():
    class SlowModel(EchoModel):
        def classify(self, content):
            time.sleep(0.6)
            return super().classify(content)

    with RunningServer(SlowModel()) as running:
        assert ask(running.port, b"abc") == (200, {"bytes": 3})


def test_open_socket_names_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = rf"port {port} of 127\.0\.0\.1: Address already in use"
        with pytest.raises(UserError, match=text):
            server.open_socket("127.0.0.1", port)


def test_open_socket_refuses_an_unknown_host():
    with pytest.raises(SettingsError, match="'no such host'"):
        server.open_socket("no such host", 0)


def test_is_loopback():
    assert all(map(server.is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(server.is_loopback, ("0.0.0.0", "::", "192.168.0.7", "example.org")))
    assert server.allowed_hosts("0.0.0.0") == ("*",)


def test_socket_url():
    with server.open_socket("127.0.0.1", 0) as listening:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.socket_url(listening))

    class Six:
        def getsockname(self):
            return ("::1", 8000, 0, 0)

    assert server.socket_url(Six()) == "http://[::1]:8000/"


def test_serve_names_a_missing_package(monkeypatch, capsys, snapshot_run):
    monkeypatch.chdir(ROOT)
    find = server.importlib.util.find_spec
    monkeypatch.setattr(
        server.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert run_main(run.main, ["serve", *snapshot_run.options], "run.py") == 2
    error = capsys.readouterr().err
    assert "pip install uvicorn" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--port", "65536"], 2, "--port .*65535.*65536"),
        (["--host", "no such host"], 2, "'no such host'"),
        (["--port", "0", "--best_model_dir", "nowhere"], 4, "nowhere"),
    ],
)
def test_serve_reports_usage_errors_in_one_line(
    capsys, monkeypatch, snapshot_run, arguments, code, text
):
    monkeypatch.chdir(ROOT)
    given = [*snapshot_run.options, *arguments]
    assert run_main(run.main, ["serve", *given], "run.py") == code
    error = capsys.readouterr().err
    assert re.search(text, error.splitlines()[-1])
    assert "Traceback" not in error


def wait_then(port, function, *arguments):
    """Call the function when the port listens."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return function(port, *arguments)
    raise TimeoutError


def ask_then_stop(port, number, found):
    """Send an image to the server, then a signal to this process."""
    content = io.BytesIO()
    Image.new("RGB", (30, 30), COLORS["red"]).save(content, "PNG")
    try:
        # The port listens from the start; the answer comes when the network is loaded.
        found.append(ask(port, content.getvalue()))
    finally:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_serve_runs_until_a_signal(capsys, monkeypatch, snapshot_run, number, code):
    monkeypatch.chdir(ROOT)
    host = "0.0.0.0" if code == 143 else "127.0.0.1"
    with server.open_socket(host, 0) as free:
        port = free.getsockname()[1]
    found = []
    asking = threading.Thread(target=wait_then, args=(port, ask_then_stop, number, found))
    asking.start()
    given = ["serve", *snapshot_run.options, "--host", host, "--port", str(port)]
    # Options of predict, which serve takes too.
    given += ["--threshold=1", "--calibrate", "--tta=2"] if code == 143 else []
    assert run_main(run.main, given, "run.py") == code
    asking.join()
    ((status, body),) = found
    assert (status, body["classes"][0]["class"]) == (200, "red")
    assert body["class"] == ("unknown" if code == 143 else "red")
    out, err = capsys.readouterr()
    assert out == f"http://{host}:{port}/\n"
    assert err.splitlines()[-1] == "The server was stopped."
    assert "error" not in err
    assert bool(re.search(r"warning: .*0\.0\.0\.0", err)) == (code == 143)
    assert bool(re.search("temperature [0-9.]+|no temperature fits", err)) == (code == 143)
    assert "Traceback" not in err
