"""The application against every kind of request, and the limits of its parts."""

import asyncio
import logging
import threading

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.testclient import TestClient

from library.serving.application import InferenceQueue, make_application
from library.serving.request_error import STATUSES, RequestError
from library.serving.server import allowed_hosts
from library.serving.uploads import RequestLimits, UploadMemory, read_upload
from tests.helpers.serving import RAW, EchoModel


@pytest.fixture
def client():
    limits = RequestLimits(0.001, 5, 16)
    application = make_application(EchoModel(), limits, allowed_hosts("127.0.0.1"))
    with TestClient(application, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def test_predict_takes_an_image_as_body_or_in_a_form(client):
    for kind in ("image/jpeg", "application/octet-stream", "", "application/x-www-form-urlencoded"):
        answer = client.post("/predict", content=b"abc", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (200, {"bytes": 3})
    answer = client.post("/predict", files={"image": ("a.jpg", b"abcd", "image/jpeg")})
    assert (answer.status_code, answer.json()) == (200, {"bytes": 4})


def test_predict_explains_on_request(client):
    for name in ("", "dog"):
        answer = client.post(f"/predict?explain={name}", content=b"abc", headers=RAW)
        assert answer.json() == {"explained": name, "bytes": 3}


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("request_", "status", "code", "text"),
    [
        ({"content": b""}, 422, "no_image", ""),
        ({"content": b"x" * 1001}, 413, "too_large", "0.001 MB"),
        ({"content": b"x" * 9999}, 413, "too_large", "0.001 MB"),
        ({"content": b"text"}, 415, "no_image_format", ""),
        ({"files": {"a": ("a", b"x" * 2000)}}, 413, "too_large", "0.001 MB"),
        ({"files": {"a": ("a", b"x"), "b": ("b", b"x")}}, 400, "bad_form", "Too many files"),
        ({"files": {"a": (None, "x")}}, 422, "no_image", ""),
        (
            {"content": b"{}", "headers": {"Content-Type": "application/json"}},
            415,
            "wrong_type",
            "application/json",
        ),
        ({"content": b"no form", "headers": FORM}, 400, "bad_form", ""),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "bad_form",
            "boundary",
        ),
        (
            {"content": b"abc", "headers": {**RAW, "Origin": "http://elsewhere.example"}},
            403,
            "other_origin",
            "http://elsewhere.example",
        ),
    ],
)
def test_predict_refuses_bad_requests_with_a_code(client, capsys, request_, status, code, text):
    request_ = request_ if "files" in request_ else {"headers": RAW, **request_}
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert answer.json()["error"] == code
    assert text in answer.json()["message"]
    assert capsys.readouterr().err == ""
    assert client.post("/predict", content=b"abc", headers=RAW).status_code == 200


def test_predict_counts_a_body_in_parts_without_a_length(client):
    answer = client.post("/predict", content=iter([b"x" * 600] * 9), headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_predict_allows_its_own_page(client):
    headers = {**RAW, "Origin": "http://127.0.0.1:8000"}
    assert client.post("/predict", content=b"abc", headers=headers).status_code == 200


def test_predict_logs_failures_and_continues(client, capsys):
    answer = client.post("/predict", content=b"broken", headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (500, "failed")
    assert "POST /predict: ValueError: broken upload" in capsys.readouterr().err
    assert client.post("/predict", content=b"abc", headers=RAW).status_code == 200


@pytest.mark.parametrize(
    ("limits", "content"), [((20, 30, -1), b"abc"), ((1e-5, 30, 16), b"abcdefghij")]
)
def test_predict_is_busy_if_too_many_wait(monkeypatch, limits, content):
    # As if all memory but 9 bytes were taken.
    monkeypatch.setattr("library.serving.uploads._UPLOADS_IN_MEMORY", 0.9)
    with TestClient(make_application(EchoModel(), RequestLimits(*limits))) as client:
        answer = client.post("/predict", content=content, headers=RAW)
        assert (answer.status_code, answer.json()["error"]) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
        # All that a refused upload took is free again.
        if limits[2] > 0:
            assert client.post("/predict", content=b"abcdefghi", headers=RAW).status_code == 200
        assert client.get("/health").status_code == 200


def test_application_refuses_other_paths_and_methods(client):
    assert client.get("/../../etc/passwd").json()["error"] == "not_found"
    assert client.get("/predict").json()["error"] == "wrong_method"
    assert client.get("/predict").status_code == 405


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "LocalHost:1", "[::1]:8000", "[::1]"],
)
def test_application_answers_to_its_own_names(client, host):
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "", "a@localhost"],
)
def test_application_refuses_other_host_names(client, host):
    for path in ("/health", "/", "/nowhere"):
        assert client.get(path, headers={"Host": host}).status_code == 400


def test_application_that_others_can_reach_answers_to_any_name():
    application = make_application(EchoModel(), RequestLimits(20, 30, 16), allowed_hosts("0.0.0.0"))
    with TestClient(application) as client:
        answer = client.get("/health", headers={"Host": "anything.example"})
    assert answer.status_code == 200


def test_health_describes_the_model(client):
    answer = client.get("/health")
    assert answer.json() == {"status": "ok", "network": "simple", "classes": ["cat", "dog"]}


def test_request_error_has_a_known_code():
    assert all(400 <= status < 600 for status in STATUSES.values())
    error = RequestError("too_large", "the upload has more than 20 MB")
    assert error.status == 413
    assert error.body == {"error": "too_large", "message": "the upload has more than 20 MB"}
    with pytest.raises(KeyError):
        RequestError("nonsense", "")


def test_queue_runs_one_at_a_time_and_refuses_more_than_may_wait():
    may_end, running, most = threading.Event(), [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        may_end.wait(10)
        running.remove(number)
        return number

    async def ask():
        queue = InferenceQueue(2)
        tasks = [asyncio.create_task(queue.run(work, number)) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as caught:
            await queue.run(work, 3)
        assert caught.value.code == "busy"
        may_end.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2]
        assert await queue.run(work, 4) == 4

    asyncio.run(ask())
    assert max(most) == 1


def test_queue_raises_errors_and_frees_their_place():
    async def ask():
        queue = InferenceQueue(0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await queue.run(lambda: 1 / 0)

    asyncio.run(ask())


def test_queue_place_of_a_cancelled_request_is_free_after_its_work():
    may_end = threading.Event()

    async def ask():
        queue, scope = InferenceQueue(0), anyio.CancelScope()

        async def run_cancelled():
            with scope:
                await queue.run(may_end.wait, 10)

        cancelled = asyncio.create_task(run_cancelled())
        await asyncio.sleep(0.05)
        scope.cancel()
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError):
            await queue.run(int)
        may_end.set()
        while True:
            try:
                found = await queue.run(int)
                await cancelled
                return found
            except RequestError:
                await asyncio.sleep(0.01)

    assert asyncio.run(asyncio.wait_for(ask(), 10)) == 0


def read(*messages, limits=None, length=None):
    """Read an upload that arrives in these parts; a number is a pause in seconds."""
    waiting = list(messages)

    async def receive():
        while isinstance(waiting[0], float):
            await asyncio.sleep(waiting.pop(0))
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    headers = [(b"content-length", length)] if length else []
    scope = {"type": "http", "method": "POST", "headers": headers, "path": "/", "app": None}
    limits = limits or RequestLimits(0.001, 5, 16)
    with UploadMemory(limits).share() as share:
        return asyncio.run(read_upload(Request(scope, receive), limits, share))


def test_upload_memory_is_shared_and_given_back():
    memory = UploadMemory(RequestLimits(0.001, 5, 16))
    with memory.share() as first, memory.share() as second:
        first.take(9000)
        second.take(900)
        with pytest.raises(RequestError, match="memory") as caught:
            second.take(101)
        assert caught.value.code == "busy"
        first.release()
        second.take(9100)
    assert memory.free == 10_000


def test_read_upload_joins_parts():
    assert read(b"ab", b"", b"cd") == b"abcd"
    assert RequestLimits(20, 30, 16).upload_bytes == 20_000_000
    assert read(b"x" * 1000) == b"x" * 1000


def test_read_upload_refuses_a_slow_body():
    with pytest.raises(RequestError, match=r"0\.05 seconds") as caught:
        read(b"a", 10.0, b"b", limits=RequestLimits(1, 0.05, 16))
    assert caught.value.code == "too_slow"


def test_read_upload_drops_a_large_body_so_that_the_client_sees_the_answer():
    with pytest.raises(RequestError, match=r"0\.001 MB"):
        read(b"x" * 900, b"x" * 900, b"x" * 900)
    # But not forever: the fifth thousand is not waited for.
    with pytest.raises(RequestError, match=r"0\.001 MB"):
        read(*[b"x" * 900] * 5, 60.0, b"x")


def test_read_upload_does_not_read_a_body_declared_far_too_large():
    with pytest.raises(RequestError, match=r"0\.001 MB"):
        read(60.0, b"x", length=b"4001")
    assert read(b"x", length=b"1") == b"x"


def test_read_upload_of_a_client_that_left():
    with pytest.raises(ClientDisconnect):
        read(b"a", None)


def test_malformed_form_is_not_logged(client, capfd):
    # Not caplog, which listens to loggers of any level.
    assert client.post("/predict", content=b"no form", headers=FORM).status_code == 400
    assert "boundary" not in capfd.readouterr().err
    assert not logging.getLogger("python_multipart.multipart").isEnabledFor(logging.ERROR)
