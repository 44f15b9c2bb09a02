import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from library.serving.hosts import OnlyHosts
from library.serving.server import hosts_of


def ask(hosts, host):
    client = TestClient(OnlyHosts(PlainTextResponse("inside"), hosts), "http://127.0.0.1")
    return client.get("/", headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "LocalHost:1", "[::1]:8000", "[::1]", "me.lan:80"],
)
def test_its_own_names_are_let_through_with_any_port(host):
    assert ask((*hosts_of("127.0.0.1"), "Me.lan"), host).text == "inside"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "",
        "a@localhost",
        "localhost:x",
    ],
)
def test_any_other_is_refused_in_json(host):
    answer = ask(hosts_of("127.0.0.1"), host)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "wrong_host",
        "message": f"this server is not called {host!r}",
    }


def test_where_others_may_reach_it_any_name_will_do():
    assert ask(hosts_of("0.0.0.0"), "anything.example").text == "inside"


def test_what_is_no_request_is_let_through():
    seen = []

    async def inside(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(OnlyHosts(inside, ("localhost",))({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
