import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from library.serving.refusals import RefusedError
from library.serving.uploads import Limits, read_upload


def read(*messages, limits=None, length=None):
    """Read an upload that comes in these parts; a number is a pause in seconds."""
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
    return asyncio.run(read_upload(Request(scope, receive), limits or Limits(0.001, 5)))


def test_parts_are_put_together():
    assert read(b"ab", b"", b"cd") == b"abcd"
    assert Limits(20).bytes == 20_000_000
    assert read(b"x" * 1000) == b"x" * 1000


def test_a_slow_upload_is_given_up():
    with pytest.raises(RefusedError, match=r"the upload took longer than 0\.05 seconds") as caught:
        read(b"a", 10.0, b"b", limits=Limits(1, 0.05))
    assert caught.value.status == 408


def test_too_large_a_body_is_dropped_to_its_end_so_that_the_answer_is_seen():
    with pytest.raises(RefusedError, match=r"the upload has more than 0\.001 MB"):
        read(b"x" * 900, b"x" * 900, b"x" * 900)
    # But not for ever: the fifth thousand is not waited for.
    with pytest.raises(RefusedError, match="more than"):
        read(*[b"x" * 900] * 5, 60.0, b"x")


def test_a_declared_size_that_is_far_too_large_is_not_read_at_all():
    with pytest.raises(RefusedError, match="more than"):
        read(60.0, b"x", length=b"4001")
    assert read(b"x", length=b"1") == b"x"


def test_who_goes_away_is_no_fault_of_the_server():
    with pytest.raises(ClientDisconnect):
        read(b"a", None)
