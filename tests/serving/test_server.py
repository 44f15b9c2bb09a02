import http.client
import io
import json
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
from library.serving.application import make_application
from library.serving.turns import Turns
from library.serving.uploads import Limits
from tests.conftest import COLORS, ROOT
from tests.serving.test_application import RAW, Model


class Running:
    """A server in a thread, on a free port."""

    def __init__(self, model, page=None, limits=None, **connections):
        limits, hosts = limits or Limits(0.5, 0.5), server.hosts_of("127.0.0.1")
        application = make_application(model, limits, Turns(2), print, hosts, page)
        self._listening = server.open_socket("127.0.0.1", 0)
        self.url = server.url_of(self._listening)
        self.port = self._listening.getsockname()[1]
        self._server = server.make_server(application, **connections)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)
        self._listening.close()
        assert not self._thread.is_alive()


def ask(port, content):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", content, RAW)
    run_main = connection.getresponse()
    found = run_main.status, json.loads(run_main.read())
    connection.close()
    return found


def test_over_a_real_socket_it_answers_whatever_comes():
    with Running(Model()) as running:
        assert ask(running.port, b"abc") == (200, {"bytes": 3})
        # Larger than allowed, and larger than what a socket holds: the answer is seen all the same.
        status, body = ask(running.port, b"x" * 1_900_000)
        assert (status, body["error"]) == (413, "too_large")
        # One that says nothing, one that stops in the middle, one that hangs up.
        silent = socket.create_connection(("127.0.0.1", running.port))
        slow = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc")
        gone = socket.create_connection(("127.0.0.1", running.port))
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc")
        gone.close()
        no_http = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        no_http.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b"400" in no_http.recv(999)
        assert ask(running.port, b"abc") == (200, {"bytes": 3})
        assert b"408" in slow.recv(99)
        assert ask(running.port, b"abc") == (200, {"bytes": 3})
        for each in (silent, slow, no_http):
            each.close()


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = rf"can't listen on port {port} of 127\.0\.0\.1: Address already in use; choose an"
        with pytest.raises(UserError, match=text):
            server.open_socket("127.0.0.1", port)


def test_a_host_that_is_none_is_one_line():
    with pytest.raises(SettingsError, match="host 'no such host' is no name or address"):
        server.open_socket("no such host", 0)


def test_who_can_reach_a_host():
    assert all(map(server.is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(server.is_loopback, ("0.0.0.0", "::", "192.168.0.7", "example.org")))
    assert server.hosts_of("0.0.0.0") == ("*",)


def test_the_url_of_a_socket():
    with server.open_socket("127.0.0.1", 0) as listening:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url_of(listening))

    class Six:
        def getsockname(self):
            return ("::1", 8000, 0, 0)

    assert server.url_of(Six()) == "http://[::1]:8000/"


def test_a_missing_package_is_one_line_and_2(monkeypatch, capsys, snapshot_run):
    monkeypatch.chdir(ROOT)
    find = server.importlib.util.find_spec
    monkeypatch.setattr(
        server.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert run_main(run.main, ["serve", *snapshot_run.options], "run.py") == 2
    assert capsys.readouterr().err == (
        "run.py: error: serve needs uvicorn: pip install uvicorn (the extra serve of "
        "pyproject.toml)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--port", "65536"], 2, "--port must be .* at most 65535, not 65536"),
        (["--host", "no such host"], 2, "host 'no such host' is no name"),
        (["--port", "0", "--best_model_dir", "nowhere"], 4, "no snapshot in nowhere"),
    ],
)
def test_what_stands_in_the_way_is_one_line(
    capsys, monkeypatch, snapshot_run, arguments, code, text
):
    monkeypatch.chdir(ROOT)
    given = [*snapshot_run.options, *arguments]
    assert run_main(run.main, ["serve", *given], "run.py") == code
    error = capsys.readouterr().err
    assert re.search(text, error.splitlines()[-1])
    assert "Traceback" not in error


def wait_then(port, function, *arguments):
    """Call the function as soon as the port listens."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return function(port, *arguments)
    raise TimeoutError


def ask_then_stop(port, number, found):
    """Ask the server as soon as it is there, then send this process a signal."""
    content = io.BytesIO()
    Image.new("RGB", (30, 30), COLORS["red"]).save(content, "PNG")
    try:
        # The port listens from the start; the answer comes when the network is there.
        found.append(ask(port, content.getvalue()))
    finally:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_serves_until_a_signal_comes(capsys, monkeypatch, snapshot_run, number, code):
    monkeypatch.chdir(ROOT)
    host = "0.0.0.0" if code == 143 else "127.0.0.1"
    with server.open_socket(host, 0) as free:
        port = free.getsockname()[1]
    found = []
    asking = threading.Thread(target=wait_then, args=(port, ask_then_stop, number, found))
    asking.start()
    given = ["serve", *snapshot_run.options, "--host", host, "--port", str(port)]
    # What predict takes, serve takes too.
    given += ["--threshold=1", "--calibrate", "--tta=2"] if code == 143 else []
    assert run_main(run.main, given, "run.py") == code
    asking.join()
    ((status, body),) = found
    assert (status, body["classes"][0]["class"]) == (200, "red")
    assert body["class"] == ("unknown" if code == 143 else "red")
    out, err = capsys.readouterr()
    assert out == f"http://{host}:{port}/\n"
    assert err.splitlines()[-1] == "run.py: error: the server was stopped"
    assert ("warning: whoever reaches 0.0.0.0 may use it" in err) == (code == 143)
    assert bool(re.search("temperature [0-9.]+|no temperature fits", err)) == (code == 143)
    assert "Traceback" not in err
