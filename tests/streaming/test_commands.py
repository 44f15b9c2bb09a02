"""The command line on streamed data: the same results, exit codes and messages."""

import csv
import threading

import pytest

import run
from library.dataset.manifest import read_manifest
from library.errors import run_main
from library.streaming import cache as cache_module
from tests.helpers.object_store import ObjectStore, used_by_this_process
from tests.streaming.conftest import URL, register, wait_until
from tests.streaming.test_streaming import least_of


def train(data_dir, run_dir, *options):
    """Train as a person would. Return the exit code and the history without its clock."""
    words = ["--data_dir", str(data_dir), "--run_dir", str(run_dir), "--model", "simple"]
    words += ["--image_size", "8", "--batch_size", "4", "--train_epochs", "2", "--no-report"]
    words += ["--parallel_interleave_sources", "3", "--shuffle_examples", "12", *options]
    code = run_main(run.main, words, "run.py")
    path = run_dir / "history.csv"
    rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else ()
    return code, [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def test_local_data_is_refused(uneven, in_root, capsys):
    words = ["--data_dir", str(uneven), "--stream_gigabytes", "1"]
    assert run_main(run.main, words, "run.py") == 2
    assert "stream_gigabytes needs a data_dir at a URL" in capsys.readouterr().err


@pytest.mark.slow
def test_training_is_the_same(uneven, store, in_root, tmp_path):
    options = ["--steps_between_evals", "6"]
    code, whole = train(uneven, tmp_path / "whole", *options)
    least = least_of(uneven, "train", "validation")
    options += ["--stream_gigabytes", f"{least / 1e9:.12f}"]
    store.troubles["train_00004-of-00012.tfrecord"] = PermissionError("not yours")
    assert train(URL, tmp_path / "run", *options)[0] == 3
    store.troubles.clear()
    cache_module.close_caches()
    assert train(URL, tmp_path / "run", *options) == (code, whole) == (0, whole)
    assert store.used_bytes() <= least


@pytest.mark.slow
def test_store_that_is_killed_and_restarted(uneven, tmp_path, monkeypatch, capsys):
    """Over s3://, with a cache smaller than the data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, read = ObjectStore(), []
    try:
        with used_by_this_process(store, monkeypatch) as url:
            from library.dataset.remote_splits import upload

            upload(read_manifest(uneven / "train", "train"), f"{url}/train")
            (split,) = register(url, "train", size=least_of(uneven, "train"))
            cache, shards = cache_module.find_streamed(split)
            passes = cache.read(shards, list(shards.shards), ())
            for _ in range(4):
                number, path = next(passes)
                cache.close_shard(number, path)
            store.stop()

            def read_rest():
                for number, path in passes:
                    read.append(path)
                    cache.close_shard(number, path)

            thread = threading.Thread(target=read_rest)
            thread.start()
            wait_until(lambda: "trying again" in capsys.readouterr().err, seconds=60)
            store.start()
            thread.join(60)
            assert len(read) == 8
    finally:
        cache_module.close_caches()
        store.close()
