import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from library import limits
from library.dataset.manifest import read_manifest
from library.dataset.unconverted import read_generated, read_unconverted
from library.errors import DataError, SettingsError
from library.files import locked
from library.inputs import disk_cache
from library.inputs.caching import cache_examples
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import ImageFormat
from library.inputs.disk_cache import DiskCache, open_cache
from library.inputs.examples import make_source
from library.inputs.worker_slice import WorkerSlice
from project.augmentations import choose_augmentations
from project.inputs import EvaluationPipeline, TrainingPipeline
from tests.conftest import convert, write_colors
from tests.helpers.ready_process import ready_process

pytestmark = pytest.mark.slow

FORMAT = ImageFormat(8, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    write_colors(folder / "images" / "train", 9)
    convert(folder / "images" / "train", folder, "train", "--num_shards", "4")
    return folder


@pytest.fixture
def manifest(folder):
    return read_manifest(folder / "train", "train")


def epochs(source, words=("flip", "brightness")):
    training = TrainingPipeline(
        source, FORMAT, 6, shuffle_examples=10, seed=0, augmentations=choose_augmentations(words)
    )
    batches = [*training.batches(0), *training.batches(3, 2)]
    return [each.numpy().tobytes() for batch in batches for each in batch]


def cached(manifest, kind, tmp_path, has_crop=False, fingerprint=None):
    image_format = None if has_crop else FORMAT
    fingerprint = fingerprint or manifest.fingerprint
    return cache_examples(make_source(manifest), image_format, kind, tmp_path, fingerprint)


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("words", [("flip", "brightness"), ("distorted_crop", "flip")])
def test_cached_batches_equal_uncached_ones(manifest, tmp_path, kind, words):
    plain = epochs(make_source(manifest), words)
    crops = "distorted_crop" in words
    assert epochs(cached(manifest, kind, tmp_path, has_crop=crops), words) == plain
    # The second time from what the first one left.
    assert epochs(cached(manifest, kind, tmp_path, has_crop=crops), words) == plain
    assert cached(manifest, "none", tmp_path).keys is not None


def test_cached_filenames(manifest, tmp_path):
    plain = make_source(manifest)
    found = []
    for source in (plain, cached(manifest, "memory", tmp_path)):
        batches = EvaluationPipeline(source, FORMAT, 6).named_batches()
        assert [len(names) for _, _, names in batches] == [6, 6, 6, 6, 3]
        found.append([each.numpy().tolist() for batch in batches for each in batch])
    assert found[0] == found[1]
    assert len({name for names in found[0][2::3] for name in names}) == 27


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_epoch_reads_no_shard(manifest, tmp_path, folder, kind):
    source = cached(manifest, kind, tmp_path)
    before = epochs(source)
    aside = folder / "train.aside"
    (folder / "train").rename(aside)
    try:
        assert epochs(source) == before
    finally:
        aside.rename(folder / "train")


def test_cache_folder_depends_on_data_and_format(manifest, tmp_path):
    cached(manifest, "disk", tmp_path)
    cached(manifest, "disk", tmp_path, fingerprint="f" * 64)
    cached(manifest, "disk", tmp_path, has_crop=True)
    assert sorted(each.name.rpartition("-")[2] for each in tmp_path.iterdir()) == [
        "8x8x3",
        "8x8x3",
        "encoded",
    ]


@pytest.mark.slow
def test_files_are_cached_and_generators_in_memory_only(folder, tmp_path):
    (files,) = read_unconverted(folder / "images", ["train"], "folder")
    plain = epochs(make_source(files))
    assert epochs(cached(files, "disk", tmp_path)) == plain
    assert epochs(cached(files, "memory", tmp_path)) == plain
    pixels = np.zeros((4, 4, 3), np.uint8)
    (generated,) = read_generated(lambda split: [(pixels, "a"), (pixels + 9, "b")], ["train"])
    assert epochs(cached(generated, "memory", tmp_path)) == epochs(make_source(generated))
    with pytest.raises(SettingsError, match=r"cache disk .*generator"):
        cached(generated, "disk", tmp_path)


def test_for_worker_reads_the_cache_of_all_shards(manifest, tmp_path):
    source = make_source(manifest)
    for part in WorkerSlice(0, 2, by_file=True).siblings():
        inputs = TrainingPipeline(source, FORMAT, 6, shuffle_examples=9, seed=0, worker_slice=part)
        cached_inputs = replace(inputs, source=cached(manifest, "disk", tmp_path))
        plain, again = ([*each.batches(1)] for each in (inputs, cached_inputs))
        assert sum(len(labels) for _, labels in plain) == source.for_worker(part).count > 0
        for (images, labels), (same_images, same_labels) in zip(plain, again, strict=True):
            assert np.array_equal(images, same_images)
            assert np.array_equal(labels, same_labels)


@pytest.mark.slow
def test_damaged_contents_are_detected_at_every_byte(manifest, tmp_path):
    cached(manifest, "disk", tmp_path)
    (folder,) = tmp_path.iterdir()
    blobs = folder / "blobs"
    whole = blobs.read_bytes()
    for position in range(0, len(whole), len(whole) // 12):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        blobs.write_bytes(damaged)
        source = cached(manifest, "disk", tmp_path)
        inputs = TrainingPipeline(source, FORMAT, 6, shuffle_examples=10, seed=0)
        with pytest.raises(DataError, match=str(folder)), explain_read_errors(inputs):
            list(inputs.batches(0))
    for remaining in (whole[:-1], b""):
        blobs.write_bytes(remaining)
        with pytest.raises(DataError, match=str(folder)):
            cached(manifest, "disk", tmp_path)
    blobs.unlink()
    with pytest.raises(DataError, match=str(folder)):
        cached(manifest, "disk", tmp_path)


def test_damaged_index_is_detected_at_every_byte(tmp_path):
    """A label that changed would be learned."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    (two,) = read_generated(lambda split: [(pixels, "a"), (pixels, "b")], ["train"])
    cached(two, "disk", tmp_path, fingerprint="f" * 64)
    (folder,) = tmp_path.iterdir()
    index = folder / "index"
    whole = index.read_bytes()
    DiskCache(folder)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        for damaged in (flipped, whole[:position]):
            index.write_bytes(damaged)
            with pytest.raises(DataError, match=str(folder)):
                DiskCache(folder)
    index.unlink()
    with pytest.raises(DataError, match=str(folder)):
        DiskCache(folder)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_corrupt_data_is_named_while_filling(folder, manifest, tmp_path, kind):
    shard = tmp_path / "train" / manifest.shards[0].file
    shutil.copytree(folder / "train", tmp_path / "train")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"{shard}: record .*\.png"):
        cached(read_manifest(tmp_path / "train", "train"), kind, tmp_path / "cache")

    write_colors(tmp_path / "images" / "train", 2)
    broken = tmp_path / "images" / "train" / "red" / "000.png"
    broken.write_bytes(broken.read_bytes()[:99])
    (files,) = read_unconverted(tmp_path / "images", ["train"], "folder")
    with pytest.raises(DataError, match=r"red/000.png") as caught:
        cached(files, kind, tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 1


def test_multi_label_data_has_its_own_cache(manifest, tmp_path):
    multi_label = replace(manifest, is_multi_label=True)
    for data, shape in ((manifest, []), (multi_label, [3])):
        _, label = cached(data, "disk", tmp_path).load(0, FORMAT)
        assert label.shape == shape


def test_second_process_waits_for_the_first(manifest, tmp_path, monkeypatch, capsys):
    cached(manifest, "disk", tmp_path / "before")
    monkeypatch.setattr(disk_cache, "_fill", lambda *_: pytest.fail("it is filled"))
    (tmp_path / "now").mkdir()
    (folder,) = (tmp_path / "before").iterdir()
    with ThreadPoolExecutor() as pool:
        with locked(tmp_path / "now" / f".{folder.name}.lock", ""):
            waiting = pool.submit(cached, manifest, "disk", tmp_path / "now")
            while "waiting" not in (told := capsys.readouterr().err):
                time.sleep(0.01)
            folder.rename(tmp_path / "now" / folder.name)
        assert waiting.result(60).count == 27
    assert f"in use by process {os.getpid()} on " in told


def test_cache_that_does_not_fit_is_refused(manifest, tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(limits, "_CONTAINER_LIMIT", limit)
    text = r"cache memory .* GB"
    limit.write_text("1000\n")
    with pytest.raises(SettingsError, match=text):
        cached(manifest, "memory", tmp_path)
    limit.write_text("max\n")
    assert cached(manifest, "memory", tmp_path).count == 27
    limit.unlink()
    assert cached(manifest, "memory", tmp_path).count == 27
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    with pytest.raises(SettingsError, match=text):
        cached(manifest, "memory", tmp_path)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SettingsError, match=r"cache disk .* GB .*free"):
        cached(manifest, "disk", tmp_path)
    assert list(tmp_path.iterdir()) == []


FILL = """
import sys
from library.dataset.manifest import read_manifest
from library.inputs import caching
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
walk = caching._read_all
def slowly(*arguments):
    for number, each in enumerate(walk(*arguments)):
        yield each
        if number == 5:
            print("ready", flush=True)
            sys.stdin.read()
caching._read_all = slowly
manifest = read_manifest(sys.argv[1], "train")
caching.cache_examples(make_source(manifest), ImageFormat(8, 3), "disk", sys.argv[2],
                       manifest.fingerprint)
"""


@pytest.mark.slow
def test_cache_killed_while_filling_is_filled_again(manifest, tmp_path):
    with ready_process(FILL, manifest.folder, tmp_path):
        (partial,) = tmp_path.glob(".images-*.partial")
        # Where a disk has no locks, what a live process of this machine writes is left alone.
        disk_cache._remove_if_dead(partial)
        assert partial.exists()
    assert epochs(cached(manifest, "disk", tmp_path)) == epochs(make_source(manifest))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"images-{manifest.fingerprint[:32]}")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "crops"), [("memory", True), ("disk", False)])
def test_multi_label_labels_are_cached(patches, tmp_path, kind, crops):
    manifest = read_manifest(patches / "train", "train")
    words = ("distorted_crop", "mixup") if crops else ("cutmix",)
    plain = epochs(make_source(manifest), words)
    for _ in range(2):
        assert epochs(cached(manifest, kind, tmp_path, has_crop=crops), words) == plain


ROWS = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("<f4")


def open_rows(folder):
    """A cache of ROWS, made in another order; the number of times that it was filled."""
    fills = []

    def make_rows():
        fills.append(folder)
        for index in (3, 0, 4, 2, 1):
            yield index, ROWS[index].tobytes(), index % 2

    label_spec = tf.TensorSpec([], tf.int64)
    return open_cache(folder, len(ROWS), label_spec, make_rows, ROWS[0].nbytes), len(fills)


def test_cache_of_equal_rows_is_an_array(tmp_path):
    for fills in (1, 0):
        cache, filled = open_rows(tmp_path / "rows-1")
        assert filled == fills
        assert np.array_equal(cache.array((2, 3), "<f4"), ROWS)
        assert cache.labels.tolist() == [0, 1, 0, 1, 0]
        assert cache.read(2) == ROWS[2].tobytes()


@pytest.mark.parametrize("file", ["blobs", "index"])
def test_damaged_cache_of_equal_rows_is_filled_again(tmp_path, file, capsys):
    open_rows(tmp_path / "rows-1")
    path = tmp_path / "rows-1" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    cache, filled = open_rows(tmp_path / "rows-1")
    assert filled == 1
    assert "damaged" in capsys.readouterr().err
    assert np.array_equal(cache.array((2, 3), "<f4"), ROWS)
    assert path.read_bytes() == whole
    assert open_rows(tmp_path / "rows-1")[1] == 0


def test_cache_that_fails_while_filling_is_absent(tmp_path):
    def make_rows():
        yield 0, b"a", 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path / "rows-1", 2, tf.TensorSpec([], tf.int64), make_rows)
    assert list(tmp_path.iterdir()) == []
