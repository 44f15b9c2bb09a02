"""The table with a row per image, against scikit-learn and plain loops."""

import csv

import numpy as np
import pytest
from sklearn import metrics

from library.evaluation.image_table import (
    COLUMNS,
    write_image_table,
    write_prediction_table,
)
from library.evaluation.predictions import Predictions, StoredScores

RANDOM = np.random.default_rng(0)
CLASSES = ("ant", "bee, wild", "cat")
# What a person may call a file, and what a spreadsheet would take for a formula.
NAMES = ("a,b.png", "two\nlines.png", "cr\rlf\r\n.png", 'quo"te.png', "=1+1.png", "\udcff.png", "é")


def read(path):
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def write(path, labels, probabilities, **extra):
    names = (NAMES * len(labels))[: len(labels)]
    write_image_table(path, names, CLASSES, labels, probabilities, extra)
    return read(path)


def test_table_of_one_class_per_image(tmp_path, monkeypatch):
    monkeypatch.setattr("library.evaluation.confusion._MAX_CHUNK", 10)
    labels = RANDOM.integers(0, 3, 40)
    probabilities = RANDOM.dirichlet(np.ones(3), 40).astype(np.float32)
    probabilities[:2] = [[1 / 3] * 3, [0, 1, 0]]
    labels[:2] = 2, 0
    folds = RANDOM.integers(1, 6, 40)
    rows = write(tmp_path / "a.csv", labels, probabilities, fold=folds)
    assert (*rows[0],) == (*COLUMNS, "fold")
    assert [row["file"] for row in rows] == [*(NAMES * 6)[:40]]
    assert [row["label"] for row in rows] == [CLASSES[each] for each in labels]
    assert [row["prediction"] for row in rows] == [
        CLASSES[each] for each in probabilities.argmax(1)
    ]
    assert (
        np.float32([row["probability"] for row in rows]).tolist() == probabilities.max(1).tolist()
    )
    own = probabilities[np.arange(40), labels]
    assert np.float32([row["label_probability"] for row in rows]).tolist() == own.tolist()
    ranks = np.array([int(row["label_rank"]) for row in rows])
    # Equal probabilities count in the order of the classes, as in argmax.
    assert ranks[0] == 3
    for k in (1, 2):
        expected = metrics.top_k_accuracy_score(labels[2:], probabilities[2:], k=k)
        assert (ranks[2:] <= k).mean() == pytest.approx(expected)
    losses = np.float64([row["loss"] for row in rows])
    assert losses[2:].mean() == pytest.approx(metrics.log_loss(labels[2:], probabilities[2:]))
    assert losses[1] == pytest.approx(87.3, abs=0.1), "finite, of a probability of 0"
    assert [int(row["fold"]) for row in rows] == folds.tolist()


def test_table_of_several_classes_per_image(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)
    probabilities = np.array([[0.75, 0.5, 0.25], [0.125, 0.875, 0.75], [0, 0, 0]], np.float32)
    rows = write(tmp_path / "a.csv", labels, probabilities)
    assert [(*(*row.values(),)[1:5], row["label_rank"]) for row in rows] == [
        ("ant|cat", "ant", "0.75", "0.75|0.25", "1|3"),
        ("", "bee, wild|cat", "0.875|0.75", "", ""),
        ("bee, wild", "", "", "0.0", "2"),
    ]
    losses = [metrics.log_loss(labels[n], probabilities[n], labels=[0, 1]) for n in range(2)]
    assert np.float64([row["loss"] for row in rows[:2]]) == pytest.approx(losses)


@pytest.mark.parametrize("is_stored", [False, True])
def test_table_of_predictions(tmp_path, is_stored):
    scores = RANDOM.normal(size=(9, 3)).astype(np.float32)
    labels, losses = RANDOM.integers(0, 3, 9), RANDOM.random(9).astype(np.float32)
    names = tuple(f"{n}.png" for n in range(9))
    kept = StoredScores([scores[:4], scores[4:]]) if is_stored else scores
    found = Predictions(kept, labels, names)
    write_prediction_table(tmp_path / "a.csv", found, CLASSES, losses)
    rows = read(tmp_path / "a.csv")
    assert [row["file"] for row in rows] == [*names]
    assert np.float32([row["loss"] for row in rows]).tolist() == losses.tolist()
    assert [CLASSES.index(row["prediction"]) for row in rows] == found.classes.tolist()
    expected = found.probabilities().max(1)
    assert np.float32([row["probability"] for row in rows]).tolist() == expected.tolist()


def test_table_is_whole_or_absent(tmp_path):
    path = tmp_path / "a.csv"
    rows = write(path, np.array([0]), np.ones((1, 3)))
    with pytest.raises(ValueError, match="zip"):
        write_image_table(path, NAMES, CLASSES, np.zeros(9, int), np.ones((9, 3)))
    assert read(path) == rows
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]
