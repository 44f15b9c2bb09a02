"""Over real sockets: silence costs its own connection, and no other's for long."""

import http.client
import json
import socket
import time

import pytest

from tests.serving.test_application import Model
from tests.serving.test_server import Running, ask

HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BEGUN = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc"


def connect(running, *parts):
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=20)
    for each in parts:
        connection.sendall(each)
    return connection


@pytest.fixture(scope="module")
def running():
    with Running(Model(), connections=2, head_secs=0.5) as each:
        yield each


@pytest.mark.parametrize("parts", [(), (HEAD,)], ids=["silent", "half a head"])
def test_silence_costs_its_connection_and_then_others_are_answered(running, parts):
    held = [connect(running, *parts) for _ in range(2)]
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    client.request("GET", "/health")
    refused = client.getresponse()
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert json.loads(refused.read())["error"] == "busy"
    client.close()
    for each in held:
        assert each.recv(9) == b""
        each.close()
    assert ask(running.port, b"abc") == (200, {"bytes": 3})


def test_half_a_second_request_is_no_better_than_half_a_first(running):
    started = time.monotonic()
    with connect(running, HEAD + b"\r\n") as again:
        answer = again.recv(9999)
        while not answer.endswith(b"}"):
            answer += again.recv(9999)
        assert answer.startswith(b"HTTP/1.1 200")
        again.sendall(HEAD)
        time.sleep(0.3)
        # More of it, byte by byte, gains no time.
        again.sendall(b"X")
        assert again.recv(9) == b""
    assert 0.4 < time.monotonic() - started < 3


def test_a_body_has_its_own_time(running):
    with connect(running, BEGUN) as slow:
        assert b"408" in slow.recv(99)


def test_a_request_that_is_worked_on_is_left_alone():
    class Slow(Model):
        def answer(self, content):
            time.sleep(0.6)
            return super().answer(content)

    with Running(Slow(), head_secs=0.2) as running:
        assert ask(running.port, b"abc") == (200, {"bytes": 3})
