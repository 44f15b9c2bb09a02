import json
import time

import numpy as np
import pytest

import run
from library.dataset.records import parse_record
from library.dataset.splits import read_splits
from library.dataset.unconverted import read_generated, read_unconverted
from library.describing import pipeline_benchmark
from library.describing.pipeline_benchmark import format_stages, read_training_rate
from library.errors import run_main
from library.inputs.caching import CachedSource, cache_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import FileSource, PipelineOptions, make_source
from project.augmentations import choose_augmentations
from project.inputs import TrainingPipeline

FORMAT = ImageFormat(8, 3)


def test_shares_of_time():
    shares = pipeline_benchmark.shares_of_time({"read": 1000, "decode": 200, "augment": 100})
    assert shares == pytest.approx({"read": 0.1, "decode": 0.4, "augment": 0.5})
    odd = pipeline_benchmark.shares_of_time({"read": 1000, "decode": 200, "augment": 201})
    assert odd["augment"] == 0


def test_format_stages_names_the_bottleneck(train):
    source = make_source(train)
    *table, last = pipeline_benchmark.format_stages(
        {"read": 1000, "decode": 200, "augment": 190}, source
    )
    assert len(table) == 3
    assert table[1].startswith("decode")
    assert "200 images/s" in table[1]
    assert "decode" in last
    assert "--max_edge" in last
    *_, last = pipeline_benchmark.format_stages(
        {"read": 1000, "decode": 900, "augment": 190}, source
    )
    assert "augment" in last


@pytest.fixture
def train(colors):
    (split,) = read_splits(colors, "train")
    return split


def all_kinds(colors, converted):
    """Yield each kind of source, and what would help where reading is slow."""
    yield make_source(converted), "more num_parallel_reads"
    files = make_source(*read_unconverted(colors, ["train"], "folder"))
    yield files, "convert"
    pixels = np.zeros((400, 400, 3), np.uint8)
    generated = read_generated(lambda split: [(pixels, "a"), (pixels, "b")] * 20, ["train"])
    yield make_source(*generated), "write the images as files"
    yield cache_examples(files, FORMAT, "memory"), "cache memory instead of disk"


@pytest.mark.slow
def test_measure_stages_of_each_source(colors, train):
    for source, advice in all_kinds(colors, train):
        key = next(iter(source.keys()))
        stored = source.stored_bytes(key)
        if isinstance(source, CachedSource):
            assert stored.shape == FORMAT.shape
        else:
            assert parse_record(stored, ("height",))["height"] > 0
        training = TrainingPipeline(source, FORMAT, 16, shuffle_examples=10, seed=0)
        rates = pipeline_benchmark.measure_stages(training, 0.1)
        assert min(rates.values()) > 0
        *_, last = pipeline_benchmark.format_stages({"read": 100, "decode": 90}, source)
        assert f"read; to speed it up: {advice}" in last


@pytest.mark.slow
def test_measure_stages_includes_reading_files(colors, monkeypatch):
    (split,) = read_unconverted(colors, ["train"], "folder")
    read, pause = split.read, 0.1
    monkeypatch.setattr(split, "read", lambda number: time.sleep(pause) or read(number))
    one_at_once = PipelineOptions(num_parallel_calls=1)
    source = make_source(split)
    training = TrainingPipeline(source, FORMAT, 16, shuffle_examples=9, seed=0, options=one_at_once)
    rates = pipeline_benchmark.measure_stages(training, 0.5)
    assert rates["read"] < 1.2 / pause
    assert pipeline_benchmark.shares_of_time(rates)["read"] > 0.6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["read", "decode"]),
        (["distorted_crop"], ["read", "decode"]),
        (["distorted_crop", "flip"], ["read", "decode", "augment"]),
        (["mixup"], ["read", "decode", "augment"]),
    ],
)
def test_augment_is_a_stage_if_images_are_augmented(train, words, expected):
    chosen = choose_augmentations(words)
    source = make_source(train)
    training = TrainingPipeline(
        source, FORMAT, 16, shuffle_examples=9, seed=0, augmentations=chosen
    )
    assert list(pipeline_benchmark.measure_stages(training, 0.01)) == expected


@pytest.mark.slow
def test_benchmark_inputs_command(capsys, options, monkeypatch):
    monkeypatch.setattr(pipeline_benchmark, "_SECONDS", 0.2)
    assert run_main(run.main, ["benchmark_inputs", *options], "run.py") == 0
    captured = capsys.readouterr()
    rates = json.loads(captured.out)["images_per_second"]
    assert list(rates) == ["read", "decode", "augment"]
    assert min(rates.values()) > 0
    assert "bottleneck" in captured.err


def test_inputs_faster_than_the_training_are_no_bottleneck(tmp_path):
    history = tmp_path / "history.csv"
    assert read_training_rate(history) is None
    history.write_text("epoch,images_per_second\n1,90\n2,\n3,110\n")
    assert read_training_rate(history) == 100
    source, rates = object.__new__(FileSource), {"read": 400.0, "decode": 130.0}
    assert list(format_stages(rates, source, 100.0))[-1].startswith("no bottleneck: ")
    for trained in (None, 120.0):
        assert list(format_stages(rates, source, trained))[-1].startswith("bottleneck: decode")
