import json
import shutil
import threading
import time
from pathlib import Path

import pytest

import run
from library.dataset import remote_splits
from library.dataset.manifest import read_manifest
from library.dataset.remote_splits import fetch_shards, find_split
from library.dataset.sources.find import find_files
from library.dataset.splits import read_split, read_splits
from library.errors import DataError, StoppedError, UnreachableError, UserError, run_main
from library.files import locked
from library.inputs.examples import make_source
from tests.conftest import ROOT, convert, write_colors

fsspec = pytest.importorskip("fsspec")


class Bucket:
    """A store in memory, and what was fetched from it."""

    url = "memory://fetching/data"

    def __init__(self, monkeypatch):
        self.store = fsspec.filesystem("memory")
        self.whole, self.monkeypatch = type(self.store).get_file, monkeypatch
        self.fetched = []
        self.fetch_by(self.get_file)

    def fetch_by(self, get_file):
        """Have the store of any thread fetch so."""

        def fetch(self, remote, local, callback):
            get_file(remote, local, callback)

        self.monkeypatch.setattr(type(self.store), "get_file", fetch)

    def put(self, folder):
        """Copy a folder of splits, all of its files, into the bucket."""
        for path in folder.glob("*/*.[tm]*"):
            name = f"/fetching/data/{path.relative_to(folder)}"
            self.store.pipe_file(name, path.read_bytes())

    def change(self, name, content):
        self.store.pipe_file(f"/fetching/data/{name}", content)

    def remove(self, name):
        self.store.rm_file(f"/fetching/data/{name}")

    def get_file(self, remote, local, callback):
        self.fetched.append(remote.rpartition("/")[2])
        self.whole(self.store, remote, local, callback=callback)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A data folder with two converted splits, of five shards and of two."""
    data_dir = tmp_path_factory.mktemp("sharded")
    for seed, (split, count, shards) in enumerate((("train", 20, 5), ("test", 5, 2))):
        write_colors(data_dir / split, count, seed=seed)
        convert(data_dir / split, data_dir, split, "--num_shards", str(shards))
    return data_dir


@pytest.fixture
def bucket(monkeypatch, tmp_path, sharded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket = Bucket(monkeypatch)
    bucket.put(sharded)
    yield bucket
    bucket.store.rm("/fetching", recursive=True)


def shard_names(data_dir, split):
    return sorted(path.name for path in (data_dir / split).glob("*.tfrecord"))


def test_shards_are_downloaded_once(bucket, sharded, capsys):
    train, test = read_splits(f"{bucket.url}/", "train", "test")
    assert train == read_manifest(train.folder, "train")
    assert train.fingerprint == read_manifest(sharded / "train", "train").fingerprint
    for mine, theirs in zip(train.paths, sorted((sharded / "train").glob("*.tfr*")), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    wanted = shard_names(sharded, "train") + shard_names(sharded, "test")
    assert sorted(bucket.fetched) == sorted(wanted)
    said = capsys.readouterr().err
    count = len(shard_names(sharded, "train"))
    assert f"{bucket.url}/train: {count} of {count} shards, 0.1 MB, to {train.folder}" in said
    assert read_splits(bucket.url, "train", "test") == [train, test]
    assert len(bucket.fetched) == len(wanted)
    assert not capsys.readouterr().err
    # No locks, nothing half.
    assert not list(train.folder.parent.rglob(".*"))


def test_stopped_download_resumes(bucket, sharded, capsys):
    names = shard_names(sharded, "train")
    whole = (sharded / "train" / names[-1]).read_bytes()
    bucket.change(f"train/{names[-1]}", whole[:-1])
    with pytest.raises(DataError, match=f"{names[-1]} .*: too short"):
        read_split(f"{bucket.url}/train", "train")
    folder = find_split(f"{bucket.url}/train", "train").folder
    there = {path.name for path in folder.iterdir()}
    # No manifest, and nothing half.
    assert there < set(names)
    bucket.change(f"train/{names[-1]}", whole)
    bucket.fetched.clear()
    # Left by a process that was killed; and one of those fetched is not what it was.
    (folder / ".x.partial").write_bytes(b"half")
    spoilt = (folder / min(there)).read_bytes()
    (folder / min(there)).write_bytes(bytes(len(spoilt)))
    manifest = read_split(f"{bucket.url}/train", "train")
    assert set(bucket.fetched) == (set(names) - there) | {min(there)}
    assert sorted(each.name for each in folder.iterdir()) == sorted([*names, "train.manifest.json"])
    assert (folder / min(there)).read_bytes() == spoilt
    assert manifest.examples == 60


def test_removed_shard_is_downloaded_again(bucket, sharded):
    manifest = read_split(f"{bucket.url}/train", "train")
    manifest.paths[1].unlink()
    bucket.fetched.clear()
    read_split(f"{bucket.url}/train", "train")
    assert bucket.fetched == [manifest.paths[1].name]
    assert manifest.repair_hint == (
        f"remove that file, and the next start downloads it again from {bucket.url}/train"
    )
    assert read_manifest(sharded / "train", "train").repair_hint == "convert again"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content + b"x", "too long"),
        (lambda content: content[:9], "too short"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "another SHA-256"),
    ],
)
def test_wrong_shard_is_named(bucket, sharded, change, text):
    name = shard_names(sharded, "train")[0]
    bucket.change(f"train/{name}", change((sharded / "train" / name).read_bytes()))
    with pytest.raises(DataError, match=f"{bucket.url}/train/{name} is not what .*: {text}"):
        read_splits(bucket.url, "train")
    assert not list(find_split(f"{bucket.url}/train", "train").folder.glob(f"*{name}*"))


def test_missing_shard_split_or_manifest_is_one_line(bucket, sharded):
    name = shard_names(sharded, "train")[0]
    bucket.remove(f"train/{name}")
    with pytest.raises(DataError, match=f"there is no {bucket.url}/train/{name}, or no bucket of"):
        read_splits(bucket.url, "train")
    text = (
        r"no memory://nowhere/train/train.manifest.json, or .* --tfrecord_dir memory://nowhere/tr"
    )
    with pytest.raises(DataError, match=text):
        read_splits("memory://nowhere", "train")
    bucket.change("test/test.manifest.json", b"{")
    text = f"{bucket.url}/test/test.manifest.json is not a manifest of this project, or is damaged"
    with pytest.raises(DataError, match=text):
        read_splits(bucket.url, "test")


def test_disagreeing_splits_are_refused_before_download(bucket, tmp_path):
    write_colors(tmp_path / "images", 2)
    (tmp_path / "images" / "red").rename(tmp_path / "images" / "rot")
    convert(tmp_path / "images", tmp_path / "apart", "validation")
    bucket.put(tmp_path / "apart")
    with pytest.raises(DataError, match=r"different classes \(only one has 'red', 'rot'\)"):
        read_splits(bucket.url, "train", "validation")
    assert not bucket.fetched


def test_network_failure_keeps_finished_shards(bucket, sharded, monkeypatch):
    names = shard_names(sharded, "train")

    def fail(remote, local, callback):
        if remote.endswith(names[-1]):
            # Once the others are done.
            while not all((Path(local).parent / name).exists() for name in names[:-1]):
                time.sleep(0.001)
            raise ConnectionError("reset by peer")
        bucket.get_file(remote, local, callback)

    bucket.fetch_by(fail)
    with pytest.raises(UnreachableError, match=f"{names[-1]} can't be read: reset by peer; "):
        read_splits(bucket.url, "train")
    bucket.fetch_by(bucket.get_file)
    bucket.fetched.clear()
    read_splits(bucket.url, "train")
    assert bucket.fetched == [names[-1]]


def test_retrying_store_may_count_twice(bucket, sharded):
    def try_twice(remote, local, callback):
        callback.relative_update(len(bucket.store.cat_file(remote)) - 1)
        bucket.get_file(remote, local, callback)

    bucket.fetch_by(try_twice)
    assert read_split(f"{bucket.url}/train", "train").examples == 60


def test_interrupt_stops_running_downloads(bucket, monkeypatch):
    begun = threading.Event()

    def endless(remote, local, callback):
        for _ in range(10_000):
            callback.absolute_update(1)
            begun.set()
            time.sleep(0.01)

    def interrupt(futures):
        begun.wait()
        raise KeyboardInterrupt

    bucket.fetch_by(endless)
    monkeypatch.setattr(remote_splits, "as_completed", interrupt)
    with pytest.raises(StoppedError, match=r"^Interrupted\. .*resume") as caught:
        read_splits(bucket.url, "train")
    assert caught.value.exit_code == 130
    assert not list(find_split(f"{bucket.url}/train", "train").folder.glob("*"))


def test_small_or_unwritable_disk_is_refused_first(bucket, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r" 0\.0 MB free.* 0\.\d MB.*XDG_CACHE_HOME"):
        read_splits(bucket.url, "train")
    assert not bucket.fetched
    monkeypatch.undo()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"can't be written: Not a directory; "):
        read_splits(bucket.url, "train")


def test_full_disk_is_one_line(bucket, monkeypatch):
    def fill(remote, local, callback):
        raise OSError(28, "No space left on device")

    bucket.fetch_by(fill)
    with pytest.raises(UserError, match=r"can't be written: No space left on device; "):
        read_splits(bucket.url, "train")


def test_without_hard_links_everything_is_downloaded(bucket, tmp_path, monkeypatch):
    manifest = read_split(f"{bucket.url}/train", "train")
    content = bucket.store.cat_file("/fetching/data/train/train.manifest.json")
    bucket.change("train/train.manifest.json", content + b"\n")
    bucket.fetched.clear()

    def refuse(self, target):
        raise OSError("not supported")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    after = read_split(f"{bucket.url}/train", "train")
    assert after.folder != manifest.folder
    assert len(bucket.fetched) == len(after.shards)


def test_second_run_waits_for_first(bucket, capsys):
    manifest = find_split(f"{bucket.url}/train", "train")
    lock = manifest.folder.with_name(f".{manifest.folder.name}.lock")
    done = threading.Event()

    def wait():
        fetch_shards([manifest])
        done.set()

    with locked(lock, "", ""):
        thread = threading.Thread(target=wait)
        thread.start()
        while "waiting for it" not in capsys.readouterr().err:
            time.sleep(0.01)
        assert not done.is_set()
        remote_splits._download(manifest)
        count = len(bucket.fetched)
    thread.join(60)
    assert done.is_set()
    assert len(bucket.fetched) == count == len(manifest.shards)


def test_shards_are_downloaded_concurrently(bucket, sharded, monkeypatch):
    count = min(8, len(shard_names(sharded, "train")))
    assert count > 1
    # Broken, unless so many come to it before any of them goes on.
    together = threading.Barrier(count, timeout=60)

    def meet(remote, local, callback):
        together.wait()
        bucket.get_file(remote, local, callback)

    bucket.fetch_by(meet)
    (manifest,) = read_splits(bucket.url, "train")
    assert all(each.exists() for each in manifest.paths)
    assert not together.broken


def test_damaged_copy_names_repair(bucket):
    manifest = read_split(f"{bucket.url}/train", "train")
    content = bytearray(manifest.paths[2].read_bytes())
    content[99] ^= 1
    manifest.paths[2].write_bytes(content)
    manifest = read_split(f"{bucket.url}/train", "train")
    text = make_source(manifest).find_corruption()
    assert text.startswith(f"{manifest.paths[2]}: record 0 (at byte 0)")
    assert text.endswith(
        f"; remove that file, and the next start downloads it again from {bucket.url}/train"
    )
    manifest.paths[2].unlink()
    assert make_source(read_split(f"{bucket.url}/train", "train")).find_corruption() is None


def test_remote_manifest_is_source(bucket, sharded):
    theirs = find_files(f"{bucket.url}/test/test.manifest.json")
    ours = find_files(sharded / "test" / "test.manifest.json")
    assert [each[:4] for each in theirs] == [each[:4] for each in ours]


@pytest.mark.slow
def test_evaluation_is_same_on_remote_data(
    snapshot_run, colors, bucket, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    bucket.put(colors)
    options = [f"--checkpoint={snapshot_run.folder}", f"--run_dir={tmp_path}", "--image_size=8"]
    answers = []
    for place in (colors, bucket.url):
        assert run_main(run.main, ["evaluate", *options, f"--data_dir={place}"], "run.py") == 0
        answers.append(json.loads(capsys.readouterr().out))
    local, fetched = (each.pop("data") for each in answers)
    assert answers[0] == answers[1]
    assert fetched["folder"] == bucket.url
    assert fetched["fingerprint"] == local["fingerprint"]
    bucket.remove("test/test.manifest.json")
    assert run_main(run.main, ["evaluate", *options, f"--data_dir={bucket.url}"], "run.py") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run.py: error: there is no {bucket.url}/test/test.manifest.json, or ")
