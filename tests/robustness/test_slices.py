"""Slices, against scikit-learn and SciPy; attributes from CSV files; image properties."""

import csv
import logging

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics

from library.dataset.splits import read_splits
from library.errors import DataError
from library.evaluation.intervals import share_interval
from library.evaluation.predictions import Predictions
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.robustness.attributes import (
    NO_VALUE,
    OTHERS,
    make_groups,
    match_attributes,
    read_attributes,
)
from library.robustness.image_properties import (
    OF_SPLIT,
    OF_TRAINING,
    UNIQUE,
    measure_properties,
)
from library.robustness.slices import (
    SliceOptions,
    adjust_by_holm,
    fisher_test,
    format_slices,
    measure_slices,
    write_slices,
)
from project.inputs import EvaluationPipeline
from tests.conftest import convert

RANDOM = np.random.default_rng(0)
COUNT = 200


def make_predictions(*, multi_label=False):
    labels = RANDOM.integers(0, 4, COUNT)
    scores = (RANDOM.normal(size=(COUNT, 4)) + 1.5 * np.eye(4)[labels]).astype(np.float32)
    if multi_label:
        labels = scores + RANDOM.normal(size=scores.shape) > 0
    return Predictions(scores, labels, tuple(map(str, range(COUNT))), multi_label)


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_of_slices_match_scikit_learn(multi_label):
    found = make_predictions(multi_label=multi_label)
    losses = RANDOM.random(COUNT).astype(np.float32)
    kinds = RANDOM.choice(["a", "b", "c"], COUNT, p=[0.7, 0.25, 0.05])
    rows = measure_slices(found, losses, {"kind": [*kinds]}, SliceOptions(100))
    assert {row["value"] for row in rows} == {"a", "b", "c"}
    guesses = found.scores > 0 if multi_label else found.scores.argmax(1)
    share = "exact_match" if multi_label else "accuracy"
    for row in rows:
        own = kinds == row["value"]
        truth, predicted = found.labels[own], guesses[own]
        assert row["images"] == own.sum()
        assert row["is_small"] == (own.sum() < 30)
        assert row[share] == pytest.approx(metrics.accuracy_score(truth, predicted))
        others = metrics.accuracy_score(found.labels[~own], guesses[~own])
        assert row["others"] == pytest.approx(others)
        assert row["difference"] == pytest.approx(row[share] - others)
        assert row["interval"] == share_interval(row[share], own.sum())
        present = np.flatnonzero(truth.any(0)) if multi_label else np.unique(truth)
        f1 = metrics.f1_score(truth, predicted, average="macro", labels=present, zero_division=0)
        assert row["macro_f1"] == pytest.approx(f1)
        assert row["loss"] == pytest.approx(losses[own].mean())
        assert row["loss_interval"][0] < row["loss"] < row["loss_interval"][1]
        right = found.correct
        table = [[(right & each).sum(), (~right & each).sum()] for each in (own, ~own)]
        assert row["p_value"] == pytest.approx(stats.fisher_exact(table)[1])
    assert [row["interval"][1] for row in rows] == sorted(row["interval"][1] for row in rows)
    assert not any(measure_slices(found, losses, {}, SliceOptions(0)))


@pytest.mark.parametrize("right", [0, 1, 7, 13, 20])
def test_fisher_test_matches_scipy(right):
    for all_right in range(right, right + 31, 3):
        table = [[right, 20 - right], [all_right - right, 30 - (all_right - right)]]
        expected = stats.fisher_exact(table)[1]
        assert fisher_test(right, 20, all_right, 50) == pytest.approx(expected)


def test_holm_correction():
    # The example of R's p.adjust(c(0.01, 0.02, 0.03, 0.5), "holm").
    assert adjust_by_holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert adjust_by_holm([0.9, 0.8]) == [1, 1]
    assert adjust_by_holm([]) == []


def test_slices_of_chance_are_rarely_named():
    named = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        correct = random.random(400) < 0.8
        groups = random.integers(0, 10, 400)
        p = [
            fisher_test(correct[own].sum(), own.sum(), correct.sum(), 400)
            for own in (groups == each for each in range(10))
        ]
        named += min(adjust_by_holm(p)) < 0.05
    assert named <= 8


def test_weak_slice_comes_first_in_table_and_file(tmp_path):
    labels = np.zeros(COUNT, int)
    scores = np.tile(np.float32([1, 0]), (COUNT, 1))
    scores[:40] = 0, 1
    scores[60] = 0, 1
    found = Predictions(scores, labels, ("x",) * COUNT)
    place = ["=night, 2\n"] * 50 + ["day"] * 148 + ["unlucky"] * 2
    rows = measure_slices(found, np.ones(COUNT), {"place": place}, SliceOptions(10))
    assert rows[0]["value"] == "=night, 2\n"
    assert rows[0]["adjusted_p_value"] < 1e-9
    assert rows[0]["loss_interval"] is None
    lines = [*format_slices(rows, "accuracy")]
    assert "3 of 3" in lines[0]
    assert lines[2].startswith("place      =night, 2\\n      50    0.2000")
    assert "2*" in "".join(lines)
    assert len([*format_slices([], "accuracy")]) == 1
    write_slices(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(newline="") as file:
        stored = list(csv.DictReader(file))
    assert [row["value"] for row in stored] == [row["value"] for row in rows]
    assert float(stored[0]["interval_low"]) == rows[0]["interval"][0]
    assert stored[0]["loss_interval_low"] == ""


def test_numbers_are_cut_at_quartiles():
    numbers = RANDOM.permutation(np.append(np.arange(1, 101) / 10, np.nan))
    groups = make_groups("x", numbers)
    assert [(name, each.sum()) for name, each in groups.items()] == [
        ("0.1 to 2.5", 25),
        ("2.6 to 5", 25),
        ("5.1 to 7.5", 25),
        ("7.6 to 10", 25),
        (NO_VALUE, 1),
    ]
    texts = ["" if np.isnan(each) else f" {each}" for each in numbers]
    assert all((groups[name] == each).all() for name, each in make_groups("x", texts).items())
    # Ties stay together, and a few numbers are groups.
    groups = make_groups("x", [0] * 90 + [1, 2, 3, 4, 5, 6.5])
    assert {name: each.sum() for name, each in groups.items()} == {"0": 90, "1 to 6.5": 6}
    assert [*make_groups("x", ["2", "2", "10", "10"])] == ["2", "10"]


def test_words_are_groups(caplog):
    caplog.set_level(logging.INFO)
    words = [f"w{n % 30:02d}" for n in range(90)] + ["often"] * 9 + ["", "12"]
    groups = make_groups("x", words)
    assert len(groups) == 21
    assert groups["often"].sum() == 9
    assert groups[OTHERS].sum() == 11 * 3 + 2
    assert sum(each.sum() for each in groups.values()) == len(words)
    assert not caplog.messages
    assert make_groups("same", ["a"] * 9) == {}
    assert make_groups("identifier", list(map(str, [f"n{n}" for n in range(99)]))) == {}
    assert ["same" in caplog.messages[0], "identifier" in caplog.messages[1]] == [True, True]
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_attributes_are_matched_by_file(tmp_path, caplog, delimiter):
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.csv"
    rows = [("", "file", "camera"), ("", "cat/1,2.jpg", " new\nline "), ("", "b.jpg", "=1")]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    names = ("b.jpg", "cat/1,2.jpg", "b.jpg")
    expected = ["=1", "new\nline", "=1"]
    assert match_attributes(read_attributes(path), names, path) == {"camera": expected}
    assert not caplog.messages
    found = match_attributes(read_attributes(path), ("b.jpg", "absent"), path)
    assert found == {"camera": ["=1", ""]}
    (message,) = caplog.messages
    assert "cat/1,2.jpg" in message
    assert "absent" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'file'"),
        ("name,x\na,1\n", "'file'"),
        ("file\na\n", "'file'"),
        ("file,x,x\na,1,2\n", "'file'"),
        ("file,x\na,1\na,2\n", "line 3: 'a'"),
        ("file,x\n\na,1,2\n", "line 3 has 3 cells"),
        ('file,x\na,"1\n', "can't be read"),
    ],
)
def test_unusable_attributes_are_refused(tmp_path, text, words):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.csv") as error:
        match_attributes(read_attributes(path), ("b",), path)
    assert words in str(error.value)
    with pytest.raises(DataError, match="absent"):
        read_attributes(tmp_path / "absent")


def test_image_properties(tmp_path):
    random = np.random.default_rng(0)

    def picture(cells=6, size=(48, 32)):
        cells = random.integers(0, 256, (cells, cells, 3), np.uint8)
        return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)

    shared, twin = picture(), picture()
    train = {"shared": shared, "other": picture()}
    dark = Image.fromarray(np.asarray(picture(size=(20, 60))) // 4)
    test = {"a": shared.resize((96, 64)), "b": twin, "c": twin, "d": dark}
    for name, images in (("train", train), ("test", test)):
        for number, (file, image) in enumerate(images.items()):
            folder = tmp_path / name / ("even!", "odd!!")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{file}.png")
        convert(tmp_path / name, tmp_path / "data", name, "--num_shards", "1")
    splits = read_splits(tmp_path / "data", "train", "test")
    training, inputs = (EvaluationPipeline(make_source(s), ImageFormat(32, 3), 4) for s in splits)
    ((images, _, names),) = inputs.named_batches()
    order = [n.decode()[6] for n in names.numpy()]
    found = measure_properties(inputs, 4, training)
    by_name = {key: dict(zip(order, values, strict=True)) for key, values in found.items()}
    assert by_name["shorter edge"] == {"a": 64, "b": 32, "c": 32, "d": 20}
    assert by_name["aspect ratio"] == {"a": 1.5, "b": 1.5, "c": 1.5, "d": 20 / 60}
    for row, image in enumerate(images.numpy()):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert found["brightness"][row] == pytest.approx(gray.mean(), abs=0.5)
        around = np.pad(gray.astype(float), 1, "reflect")
        sums = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
        expected = (sums - 4.0 * gray).var()
        assert found["sharpness"][row] == pytest.approx(expected, rel=0.05)
    assert by_name["duplicates"] == {"a": OF_TRAINING, "b": OF_SPLIT, "c": OF_SPLIT, "d": UNIQUE}
    assert measure_properties(inputs, 4)["duplicates"].count(UNIQUE) == 2
    assert len(measure_properties(inputs, 2)["duplicates"]) == 2
