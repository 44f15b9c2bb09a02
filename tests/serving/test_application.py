import base64
import hashlib

import pytest
from starlette.testclient import TestClient

from library.serving.application import make_application
from library.serving.refusals import RefusedError
from library.serving.server import hosts_of
from library.serving.turns import Turns
from library.serving.uploads import Limits

RAW = {"Content-Type": "application/octet-stream"}


class Model:
    """PredictionFormatter with what it was given, so that a test sees it."""

    name = "simple"
    subject = "simple <of> 2 classes"
    classes = ("cat", "dog")

    def answer(self, content):
        if content == b"broken":
            raise ValueError("of all things")
        if content == b"text":
            raise RefusedError("no_image_format", "the upload is no image")
        return {"bytes": len(content)}

    def explain(self, content, name):
        return {"explained": name, **self.answer(content)}


class Full(Turns):
    """Turns of which none is free."""

    async def take(self, function, *arguments):
        raise RefusedError("busy", "too many pictures wait already")


@pytest.fixture
def said():
    return []


@pytest.fixture
def client(said):
    limits, turns = Limits(megabytes=0.001, seconds=5), Turns(4)
    application = make_application(Model(), limits, turns, said.append, hosts_of("127.0.0.1"))
    with TestClient(application, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def test_an_image_is_taken_as_body_or_in_a_form(client):
    for kind in ("image/jpeg", "application/octet-stream", "", "application/x-www-form-urlencoded"):
        answer = client.post("/predict", content=b"abc", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (200, {"bytes": 3})
    answer = client.post("/predict", files={"image": ("a.jpg", b"abcd", "image/jpeg")})
    assert (answer.status_code, answer.json()) == (200, {"bytes": 4})


def test_it_explains_on_request(client):
    answer = client.post("/predict?explain=", content=b"abc", headers=RAW)
    assert answer.json() == {"explained": "", "bytes": 3}
    answer = client.post("/predict?explain=dog", content=b"abc", headers=RAW)
    assert answer.json() == {"explained": "dog", "bytes": 3}


@pytest.mark.parametrize(
    ("request_", "status", "word", "text"),
    [
        ({"content": b""}, 422, "no_image", "the upload is empty"),
        ({"content": b"x" * 1001}, 413, "too_large", "the upload has more than 0.001 MB"),
        ({"content": b"x" * 9999}, 413, "too_large", "the upload has more than 0.001 MB"),
        ({"content": b"text"}, 415, "no_image_format", "the upload is no image"),
        ({"files": {"a": ("a", b"x" * 2000)}}, 413, "too_large", "more than 0.001 MB"),
        ({"files": {"a": ("a", b"x"), "b": ("b", b"x")}}, 400, "bad_form", "Too many files"),
        ({"files": {"a": (None, "x")}}, 422, "no_image", "the form has no file"),
        (
            {"content": b"{}", "headers": {"Content-Type": "application/json"}},
            415,
            "wrong_type",
            "send an image, or a form with a file (multipart/form-data), not application/json",
        ),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "bad_form",
            "the form can't be read: ",
        ),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "bad_form",
            "Missing boundary",
        ),
        (
            {"content": b"abc", "headers": {**RAW, "Origin": "http://elsewhere.example"}},
            403,
            "other_origin",
            "pages of http://elsewhere.example may not ask here",
        ),
    ],
)
def test_bad_requests_are_refused_with_a_word_and_the_server_goes_on(
    client, said, request_, status, word, text
):
    request_ = request_ if "files" in request_ else {"headers": RAW, **request_}
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert answer.json()["error"] == word
    assert text in answer.json()["message"]
    assert said == []
    assert client.post("/predict", content=b"abc", headers=RAW).status_code == 200


def test_a_body_in_parts_without_a_length_is_counted_too(client):
    answer = client.post("/predict", content=iter([b"x" * 600] * 9), headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_its_own_page_may_ask(client):
    headers = {**RAW, "Origin": "http://127.0.0.1:8000"}
    assert client.post("/predict", content=b"abc", headers=headers).status_code == 200


def test_what_fails_is_told_in_the_log_and_the_server_goes_on(client, said):
    answer = client.post("/predict", content=b"broken", headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (500, "failed")
    assert said == ["POST /predict failed: ValueError: of all things"]
    assert client.post("/predict", content=b"abc", headers=RAW).status_code == 200


def test_where_too_many_wait_it_says_when_to_come_again():
    application = make_application(Model(), Limits(), Full(1), print)
    with TestClient(application) as client:
        answer = client.post("/predict", content=b"abc", headers=RAW)
        assert (answer.status_code, answer.json()["error"]) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200


def test_other_paths_methods_and_hosts_are_refused(client):
    assert client.get("/../../etc/passwd").json()["error"] == "not_found"
    assert client.get("/predict").json()["error"] == "wrong_method"
    assert client.get("/predict").status_code == 405
    assert client.get("/health", headers={"Host": "localhost:8000"}).status_code == 200
    answer = client.get("/health", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]) == (400, "wrong_host")


def test_health_tells_what_is_served(client):
    answer = client.get("/health")
    assert answer.json() == {"status": "ok", "network": "simple", "classes": ["cat", "dog"]}


def test_the_page_runs_its_own_script_alone(client):
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "simple &lt;of&gt; 2 classes" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for kind in ("script", "style"):
        inside = answer.text.split(f"<{kind}>")[1].split(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    # Nothing is fetched from elsewhere, and no inline style or handler would be let through.
    for word in ("http:", "https:", "//cdn", " style=", " onclick="):
        assert word not in answer.text
