"""Shards at a URL, downloaded while they are read: the same examples, within a limit."""

from dataclasses import replace

import numpy as np
import pytest

from library.dataset.manifest import read_manifest
from library.errors import SettingsError
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.inputs.worker_slice import WorkerSlice
from library.streaming.source import stream
from project.inputs import TrainingPipeline
from tests.streaming.conftest import TRAIN, VALIDATION


def sizes_of(uneven, name):
    return sorted((each.bytes for each in read_manifest(uneven / name, name).shards), reverse=True)


def least_of(uneven, *names, interleaved=3):
    return sum(sum(sizes_of(uneven, name)[:interleaved]) for name in names)


def records(source, seed):
    random = None if seed is None else np.random.default_rng(seed)
    return list(source.keys(random).prefetch(2).as_numpy_iterator())


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_streamed_examples_are_those_of_all_shards_within_limit(uneven, store, streamed, share):
    least, most = (
        least_of(uneven, "train", "validation"),
        sum(map(sum, (sizes_of(uneven, "train"), sizes_of(uneven, "validation")))),
    )
    size = round(least + share * (most - least))
    splits = streamed("train", "validation", size=size)
    pairs = []
    for split in splits:
        local = make_source(read_manifest(uneven / split.name, split.name), interleaved=3)
        pairs.append((local, stream(make_source(split, interleaved=3), split)))
    for seed in (1, None, 2):
        for local, remote in pairs:
            assert records(remote, seed) == records(local, seed)
    assert store.most_bytes <= size
    assert store.used_bytes() <= size
    downloads = len(store.fetched)
    assert downloads == len(TRAIN) + len(VALIDATION) if share == 1 else downloads > 25


def test_cache_too_small_names_the_least_that_works(uneven, streamed):
    least = least_of(uneven, "train", "validation")
    with pytest.raises(SettingsError, match="stream_gigabytes") as caught:
        streamed("train", "validation", size=least - 1)
    enough = float(str(caught.value).split("; ")[1].split()[0])
    assert least <= enough * 1e9 < 1.02 * least
    streamed("train", "validation", size=enough * 1e9)


def pipelines(uneven, split, **options):
    """Training inputs of all shards at hand, and of the same ones streamed."""
    image_format = ImageFormat(8, 3)
    sources = (
        make_source(read_manifest(uneven / split.name, split.name), interleaved=3),
        stream(make_source(split, interleaved=3), split),
    )
    return [TrainingPipeline(each, image_format, 4, 12, 7, **options) for each in sources]


def batches_of(inputs, epoch, start=0):
    return [
        (images.tobytes(), labels.tolist())
        for images, labels in inputs.batches(epoch, start).as_numpy_iterator()
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_oversampled": True},
        {"worker_slice": WorkerSlice(1, 2)},
        {"worker_slice": WorkerSlice(1, 2, by_file=True)},
    ],
    ids=["shuffled", "oversampled", "worker", "shard_by_file"],
)
def test_batches_from_the_middle_of_an_epoch(uneven, store, streamed, options):
    (split,) = streamed("train", size=least_of(uneven, "train"))
    local, remote = pipelines(uneven, split, **options)
    for epoch, start in ((0, 0), (1, local.batches_per_epoch - 3)):
        assert batches_of(remote, epoch, start) == batches_of(local, epoch, start)


def test_resume_downloads_no_shard_that_was_used_up(uneven, store, streamed):
    (split,) = streamed("train", size=sum(sizes_of(uneven, "train")))
    local, remote = pipelines(uneven, split)
    remote = replace(remote, source=replace(remote.source, epochs=1))
    start = local.batches_per_epoch - 1
    assert batches_of(remote, 0, start) == batches_of(local, 0, start)
    assert len(store.fetched) < len(TRAIN) / 2


def test_preview_takes_what_is_being_read(uneven, store, streamed):
    (split,) = streamed("train", size=least_of(uneven, "train"))
    _, remote = pipelines(uneven, split)
    batches = iter(remote.batches(0))
    next(batches)
    images, _ = next(iter(remote.preview_batches(0, 3)))
    assert 0 < len(images) <= 4
    assert len(list(batches)) == remote.batches_per_epoch - 1
    # Dropped iterators have given up their shards.
    del batches
    assert not remote.source.cache._passes
