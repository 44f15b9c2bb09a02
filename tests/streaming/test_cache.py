"""What goes wrong: shards, stores, disks, signals and processes."""

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from library.errors import DataError, SettingsError, UnreachableError, UserError, signal_arrived
from library.files import sha256_of
from library.streaming import cache as cache_module
from library.streaming.cache import find_streamed
from library.streaming.claims import Answer, Claims
from tests.conftest import ROOT
from tests.streaming.conftest import wait_until
from tests.streaming.test_streaming import least_of


@pytest.fixture
def reader(streamed, uneven):
    """Return a function that reads some shards of the training split, without TensorFlow."""

    def read(count=None, size=None):
        (split,) = streamed("train", size=size or least_of(uneven, "train"))
        cache, shards = find_streamed(split)
        order = list(shards.shards)[:count]
        paths = []
        for number, path in cache.read(shards, order, ()):
            # What is read is whole.
            assert sha256_of(path) == shards.shards[path].shard.sha256
            paths.append(path)
            cache.close_shard(number, path)
        return paths

    return read


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait a tenth of the time before a shard is tried again."""
    monkeypatch.setattr(cache_module, "_MAX_DELAY_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "too short"), (b"x" * 99_999, "too long"), (None, "there is no memory://")],
    ids=["short", "long", "missing"],
)
def test_wrong_shard_is_tried_again_and_then_an_error(store, reader, uneven, content, text):
    name = sorted(path.name for path in (uneven / "train").glob("*.tfrecord"))[5]
    tried = []
    if content is None:
        store.files.rm_file(f"/streamed/data/train/{name}")
        store.troubles[name] = tried.append
    else:
        store.put(f"train/{name}", content)
        store.troubles[name] = tried.append
    with pytest.raises(DataError, match=text) as caught:
        reader()
    assert name in str(caught.value)
    assert len(tried) >= 3
    assert caught.value.exit_code == 3
    assert not list(store.folder.rglob(f"*{Path(name).stem}*"))


def test_store_that_comes_back_is_waited_for(store, reader, capsys):
    store.troubles[""] = ConnectionError("reset by peer")
    found = []
    thread = threading.Thread(target=lambda: found.extend(reader()))
    thread.start()
    wait_until(lambda: "reset by peer; trying again" in capsys.readouterr().err)
    time.sleep(0.3)
    store.troubles.clear()
    thread.join(30)
    assert len(found) == 12
    assert "seconds of errors" in capsys.readouterr().err


def test_store_that_stays_away_ends_the_wait(reader, store, monkeypatch):
    monkeypatch.setattr(cache_module, "PATIENCE_SECONDS", 0.5)
    store.troubles[""] = ConnectionError("reset by peer")
    with pytest.raises(UnreachableError, match=r"train_.* can't be read: reset by peer"):
        reader()


def test_signal_ends_the_wait_for_a_store(reader, store, monkeypatch):
    monkeypatch.setattr(cache_module, "_STALLED_SECONDS", 0.2)
    store.troubles[""] = lambda local: time.sleep(5)
    signal_arrived.set()
    try:
        with pytest.raises(UnreachableError, match="stopped"):
            reader()
    finally:
        signal_arrived.clear()


def test_full_disk_is_one_line(reader, store):
    store.troubles[""] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="No space left on device; use a smaller --stream_") as it:
        reader()
    assert it.value.exit_code == 1


def test_restart_reuses_intact_shards_only(reader, store):
    size = 10**9
    first, second, *_ = reader(size=size)
    assert len(store.fetched) == 12
    Path(first).write_bytes(b"\0" * Path(first).stat().st_size)
    Path(second).unlink()
    # Left by a process that was killed.
    (store.folder / "1-dead").mkdir()
    (store.folder / "1-dead" / f".{Path(second).name}.partial").write_bytes(b"half")
    cache_module.close_caches()
    store.fetched.clear()
    reader(size=size)
    assert sorted(store.fetched) == [
        "train_00000-of-00012.tfrecord",
        "train_00001-of-00012.tfrecord",
    ]
    assert not (store.folder / "1-dead").exists()


_OTHER = """
import sys
from library.streaming.claims import Claims
claims = Claims(__import__("pathlib").Path(sys.argv[1]), int(sys.argv[2]))
claims.require(40)
print(claims.claim("theirs.tfrecord", 30).name, flush=True)
sys.stdin.read()
"""


def test_two_processes_share_the_limit(tmp_path):
    mine = Claims(tmp_path, 100)
    mine.require(30)
    assert mine.share() == 100
    for name in ("old", "mine"):
        assert mine.claim(f"{name}.tfrecord", 50) is Answer.GRANTED
        (tmp_path / f"{name}.tfrecord").write_bytes(b"x" * 50)
    mine.release(["old.tfrecord"])
    words = [sys.executable, "-c", _OTHER, str(tmp_path), "100"]
    other = subprocess.Popen(words, cwd=ROOT, stdin=-1, stdout=-1, text=True)
    try:
        # What nobody claims is deleted for it.
        assert other.stdout.readline() == "GRANTED\n"
        assert not (tmp_path / "old.tfrecord").exists()
        assert mine.share() == 50
        assert mine.claim("theirs.tfrecord", 30) is Answer.ELSEWHERE
        assert mine.claim("more.tfrecord", 30) is Answer.FULL
        with pytest.raises(SettingsError, match="2 processes"):
            mine.require(60)
    finally:
        other.kill()
        other.communicate()
    # Nothing is left of a process that was killed.
    assert mine.share() == 100
    assert mine.claim("more.tfrecord", 50) is Answer.GRANTED
    mine.close()
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []
