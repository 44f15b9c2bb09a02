"""Splits of uneven shards, and a store in memory that knows how much of the cache is used."""

import contextlib
import hashlib
import io
import time
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from library.dataset.manifest import Manifest, Shard, shard_name, write_manifest
from library.dataset.records import Record, frame
from library.dataset.splits import read_splits
from library.streaming import cache as cache_module
from library.streaming.splits import register_splits

URL = "memory://streamed/data"
TRAIN, VALIDATION = (3, 9, 1, 5, 7, 2, 8, 0, 4, 6, 10, 3), (4, 2, 5)


def write_split(folder, name, counts, seed):
    """Write shards of so many noisy images of two classes, and their manifest."""
    random, classes = np.random.default_rng(seed), ("dark", "light")
    folder.mkdir(parents=True)
    shards, class_counts = [], [0, 0]
    for number, count in enumerate(counts):
        content = b""
        for index in range(count):
            label = (number + index) % 2
            class_counts[label] += 1
            pixels = random.integers(0, 100, (8, 8, 3)) + 150 * label
            encoded = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(encoded, "JPEG", quality=95)
            file = f"{name}-{number}-{index}"
            content += frame(Record(encoded.getvalue(), 8, 8, label, classes[label], file))
        file = shard_name(name, number, len(counts))
        (folder / file).write_bytes(content)
        shards.append(Shard(file, count, len(content), hashlib.sha256(content).hexdigest()))
    write_manifest(Manifest(folder, name, classes, tuple(class_counts), tuple(shards)))


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """A data folder with two splits of shards of uneven sizes, one of them empty."""
    data_dir = tmp_path_factory.mktemp("uneven")
    write_split(data_dir / "train", "train", TRAIN, 0)
    write_split(data_dir / "validation", "validation", VALIDATION, 1)
    return data_dir


class Store:
    """The data in memory, behind a URL; counts downloads and the bytes that the cache has."""

    def __init__(self, data_dir, cache_dir, monkeypatch):
        self.files = fsspec.filesystem("memory")
        self.folder = cache_dir / "image-classification-streamed"
        self.fetched, self.most_bytes = [], 0
        # What to raise, or to call before a download: {file name: exception or function}.
        self.troubles = {}
        self._whole = type(self.files).get_file
        monkeypatch.setattr(type(self.files), "get_file", self._get_file())
        for path in data_dir.glob("*/*"):
            self.put(path.relative_to(data_dir), path.read_bytes())

    def put(self, name, content):
        self.files.pipe_file(f"/streamed/data/{name}", content)

    def _get_file(self):
        whole = self._whole

        def get_file(files, remote, local, callback):
            name = Path(remote).name
            trouble = self.troubles.get(name) or self.troubles.get("")
            if isinstance(trouble, Exception):
                raise trouble
            if trouble:
                trouble(local)
            whole(files, remote, local, callback=callback)
            self.fetched.append(name)
            # Meanwhile nothing is deleted, and no download begins.
            with cache_module._caches[0]._changed:
                self.most_bytes = max(self.most_bytes, self.used_bytes())

        return get_file

    def used_bytes(self):
        """The bytes of all shards in the cache, downloads included."""
        sizes = {}
        for path in self.folder.rglob("*.tfrecord*"):
            # Without what follows in the name of a download; it may just be moved.
            name = path.name.partition(".tfrecord")[0].lstrip(".")
            with contextlib.suppress(FileNotFoundError):
                sizes[name] = max(sizes.get(name, 0), path.stat().st_size)
        return sum(sizes.values())


@pytest.fixture
def store(uneven, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(uneven, tmp_path / "cache", monkeypatch)
    yield store
    cache_module.close_caches()
    store.files.rm("/streamed", recursive=True)


def register(url, *names, size, interleaved=3):
    """Stream splits by their names through a cache of so many bytes."""
    splits = read_splits(url, *names, fetch=False)
    register_splits(splits, size / 1e9, interleaved)
    return splits


@pytest.fixture
def streamed(store):
    """Return a function that streams splits in the store."""
    return partial(register, URL)


def wait_until(is_true, seconds=20):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)
