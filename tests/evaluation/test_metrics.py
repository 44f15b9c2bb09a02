"""Metrics, compared with scikit-learn."""

import errno
import json
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from library.errors import UserError
from library.evaluation import confusion
from library.evaluation.calibration import fit_temperature
from library.evaluation.confusion import (
    ClassPairs,
    class_average,
    class_metrics,
    confusion_cells,
    confusion_matrix,
    in_top_k,
    weighted_mean,
)
from library.evaluation.intervals import bootstrap_weights, unit_weights
from library.evaluation.metrics import EvaluationOptions, add_calibrated_metrics, compute_metrics
from library.evaluation.predictions import Predictions, StoredScores
from library.evaluation.roc import class_areas
from library.models.scores import to_probabilities

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, 300)
SCORES = (RANDOM.normal(size=(300, 5)) + 1.5 * np.eye(5)[LABELS]).round(1)  # With ties.


SCORES[:, 3] -= 9  # Class 3 is never predicted; class 4 has no images.


GUESSES = SCORES.argmax(1)


SHARES = ("precision", "recall", "f1")


def metrics_of_classes(weights=None):
    weights = unit_weights(300) if weights is None else weights
    truth, predicted = (ClassPairs.of_labels(each, 5) for each in (LABELS, GUESSES))
    return class_metrics(truth, predicted, GUESSES[truth.rows] == truth.classes, weights)


def sklearn_scores(**how):
    return metrics.precision_recall_fscore_support(LABELS, GUESSES, zero_division=0, **how)


def test_accuracy_equals_scikit_learn():
    assert weighted_mean(LABELS == GUESSES, unit_weights(300))[0] == metrics.accuracy_score(
        LABELS, GUESSES
    )


def test_class_metrics_match_scikit_learn():
    found, expected = metrics_of_classes(), sklearn_scores(labels=range(5))
    for name, theirs in zip(SHARES, expected, strict=False):
        assert found[name][0, :4] == pytest.approx(theirs[:4])
        assert np.isnan(found[name][0, 4]), "a class without images has no metrics"
    assert found["images"][0].tolist() == expected[3].tolist()
    assert found["guesses"][0].tolist() == np.bincount(GUESSES, minlength=5).tolist()
    assert found["precision"][0, 3] == 0, "it has images, but none was predicted"


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_averages_over_classes_match_scikit_learn(average):
    found, expected = metrics_of_classes(), sklearn_scores(labels=range(4), average=average)
    class_weights = np.ones(5) if average == "macro" else found["images"]
    for name, theirs in zip(SHARES, expected, strict=False):
        assert class_average(found[name], class_weights)[0] == pytest.approx(theirs)


def test_weights_equal_repeated_images():
    (weights,) = bootstrap_weights(300, 2)
    rows = np.repeat(np.arange(300), weights[:, 1].astype(int))
    expected = metrics.recall_score(LABELS[rows], GUESSES[rows], labels=range(4), average=None)
    assert metrics_of_classes(weights)["recall"][1, :4] == pytest.approx(expected)
    assert weighted_mean(LABELS == GUESSES, weights)[1] == (LABELS == GUESSES)[rows].mean()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_in_top_k_matches_scikit_learn(k):
    scores = RANDOM.normal(size=(300, 5))
    expected = metrics.top_k_accuracy_score(LABELS, scores, k=k, labels=range(5))
    assert in_top_k(scores, LABELS, k).mean() == expected


def test_in_top_k_breaks_ties_like_argmax():
    assert in_top_k(np.zeros((3, 3)), np.arange(3), 2).tolist() == [True, True, False]
    assert (in_top_k(SCORES, LABELS, 1) == (GUESSES == LABELS)).all()


def test_confusion_matrix_matches_scikit_learn():
    expected = metrics.confusion_matrix(LABELS, GUESSES, labels=range(5))
    assert (confusion_matrix(LABELS, GUESSES, 5) == expected).all()
    cells = [[*each, expected[tuple(each)]] for each in np.argwhere(expected).tolist()]
    assert confusion_cells(LABELS, GUESSES, 5).tolist() == cells


def test_averages_without_images_are_nan():
    none = ClassPairs.of_labels(np.zeros(0, int), 2)
    empty = class_metrics(none, none, np.zeros(0, bool), unit_weights(0))
    for class_weights in (np.ones(2), empty["images"]):
        assert np.isnan(class_average(empty["f1"], class_weights)).all()


def ranked(decimals, count=400):
    random = np.random.default_rng(decimals)
    truth = random.random(count) < 0.3
    return (0.4 * truth + 0.6 * random.random(count)).round(decimals), truth


SKLEARN_AREAS = (metrics.roc_auc_score, metrics.average_precision_score)


@pytest.mark.parametrize("decimals", [9, 2, 1, 0])
def test_areas_match_scikit_learn(decimals):
    probabilities, truth = ranked(decimals)
    for area, expected in zip(class_areas(probabilities, truth), SKLEARN_AREAS, strict=True):
        assert area.own.mean() == pytest.approx(expected(truth, probabilities))


@pytest.mark.parametrize("decimals", [9, 1])
def test_areas_change_with_weights_as_in_scikit_learn(decimals):
    probabilities, truth = ranked(decimals, 60)
    for area, compute in zip(class_areas(probabilities, truth), SKLEARN_AREAS, strict=True):
        expected = compute(truth, probabilities)
        for image in range(0, 60, 7):
            weights = np.ones(60)
            weights[image] += 1e-5
            own = np.average(area.own, weights=weights[truth])
            found = own + area.slopes @ (weights - 1)
            change = compute(truth, probabilities, sample_weight=weights) - expected
            assert found - expected == pytest.approx(change, rel=1e-3, abs=1e-12)


def test_variance_of_areas_is_that_of_other_splits():
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        truth = np.arange(200) < 40
        drawn.append(class_areas(random.normal(size=200) + 1.5 * truth, truth))
    for areas in zip(*drawn, strict=True):
        true = np.var([each.own.mean() for each in areas])
        # That of PR AUC tends to be too large rather than too small.
        assert 0.9 < np.mean([each.variance for each in areas]) / true < 1.3


def test_areas_of_nothing_but_the_class():
    roc, pr = class_areas(np.array([0.1, 0.9, 0.5]), np.ones(3, bool))
    assert np.isnan(roc.own).all()
    assert (pr.own == 1).all()
    assert (roc.slopes == 0).all()
    assert pr.slopes == pytest.approx(np.zeros(3))


CLASSES = ("a", "b", "c", "absent")


def predictions(count=300, *, multi_label=False, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    truth = np.eye(4, dtype=np.float32)[labels]
    if multi_label:
        truth[:, 0] = random.random(count) < 0.5
    scores = (random.normal(size=(count, 4)) * 2 + 2 * truth).astype(np.float32)
    names = tuple(f"{number}.jpg" for number in range(count))
    return Predictions(scores, truth if multi_label else labels, names, multi_label)


def test_intervals_contain_their_metrics():
    found = predictions()
    right = found.classes == found.labels
    result = compute_metrics(
        found,
        CLASSES,
        {"loss": -np.log(found.probabilities()[:, 0]), "accuracy": right},
        EvaluationOptions(5, 1000),
    )
    assert result["accuracy"] == metrics.accuracy_score(found.labels, found.classes)
    overall = [name for name, value in result.items() if isinstance(value, float)]
    assert {"loss", "top_k_accuracy", "macro_f1", "weighted_roc_auc", "ece"} <= {*overall}
    for name in set(overall) - {"confidence"}:
        low, high = result["intervals"][name]
        assert low <= result[name] <= high, name
    row = result["classes"]["b"]
    assert row["images"] == (found.labels == 1).sum()
    assert row["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(found.labels == 1, found.probabilities()[:, 1])
    )
    assert row["intervals"]["recall"][0] < row["recall"] < row["intervals"]["recall"][1]
    assert np.array(result["confusion_matrix"]).trace() == right.sum()


def values_of(found):
    """What project/objective.py computes for each image."""
    if found.multi_label:
        return {"accuracy": ((found.scores > 0) == (found.labels > 0.5)).mean(1)}
    losses = losses_of(found.scores, found.labels)
    return {"loss": losses, "accuracy": found.classes == found.labels}


def draw(seed, images, class_count, *, skill=2.0, multi_label=False):
    """Return predictions of random images; the classes' frequencies fall as 1, 1/2, 1/3, …"""
    random = np.random.default_rng(seed)
    frequencies = 1 / np.arange(1, class_count + 1)
    labels = random.choice(class_count, images, p=frequencies / frequencies.sum())
    truth = np.eye(class_count, dtype=np.float32)[labels]
    if multi_label:
        truth = (random.random(truth.shape) < np.maximum(truth, 0.2)).astype(np.float32)
    scores = (random.normal(size=truth.shape) + skill * (2 * truth - 1)).astype(np.float32)
    names = tuple(map(str, range(images)))
    return Predictions(scores, truth if multi_label else labels, names, multi_label)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("skill", [0.0, 1.5, 20.0])
@pytest.mark.parametrize(
    ("images", "class_count"), [(1, 2), (2, 2), (3, 40), (40, 40), (100, 50), (300, 3)]
)
def test_every_interval_contains_its_metric(images, class_count, skill, multi_label):
    for seed in range(3):
        found = draw(seed, images, class_count, skill=skill, multi_label=multi_label)
        names = [*map(str, range(class_count))]
        result = compute_metrics(found, names, values_of(found), EvaluationOptions(5, 30))
        for row in (result, *result["classes"].values()):
            for name, interval in row["intervals"].items():
                if interval is None:
                    assert row[name] is None or name in ("loss", "accuracy")
                    continue
                low, high = interval
                assert low <= row[name] <= high, name
                assert low < high or name == "ece", f"{name} is not certain"


def test_shares_have_wilson_intervals():
    labels = np.arange(45) % 3
    found = Predictions(9 * np.eye(3, dtype=np.float32)[labels], labels, tuple(map(str, labels)))
    values = {**values_of(found), "loss": np.zeros(45)}
    result = compute_metrics(found, "abc", values, EvaluationOptions(2, 50))
    assert result["intervals"]["loss"] is None, "equal losses tell nothing about others"
    for name in ("accuracy", "top_k_accuracy", "macro_recall", "weighted_f1", "macro_roc_auc"):
        assert result["intervals"][name] == (pytest.approx(0.9213, abs=5e-5), 1.0), name
    for name in ("precision", "recall", "roc_auc", "pr_auc"):
        low, high = result["classes"]["a"]["intervals"][name]
        assert (low, high) == (pytest.approx(0.7961, abs=5e-5), 1.0), name


@pytest.mark.slow
@pytest.mark.parametrize(("images", "class_count", "skill"), [(100, 50, 1.0), (300, 3, 2.0)])
def test_intervals_cover_the_mean_of_other_splits(images, class_count, skill):
    """About 95 of 100 intervals should; with one or two images in most classes, fewer do."""
    names = [*map(str, range(class_count))]
    results = []
    for seed in range(200):
        found = draw(seed, images, class_count, skill=skill)
        results.append(compute_metrics(found, names, values_of(found), EvaluationOptions(5, 200)))
    for name in set(results[0]["intervals"]) - {"ece"}:
        true = np.mean([each[name] for each in results])
        bounds = np.array([each["intervals"][name] for each in results])
        covered = (bounds[:, 0] <= true) & (true <= bounds[:, 1])
        assert covered.mean() >= (0.85 if images < 2 * class_count + 1 else 0.89), name


def test_absent_class_has_no_metrics():
    result = compute_metrics(
        predictions(), CLASSES, {}, EvaluationOptions(top_k=9, bootstrap_samples=20)
    )
    assert result["absent"] == ["absent"]
    assert result["top_k"] == 4
    assert result["top_k_accuracy"] == 1
    row = result["classes"]["absent"]
    assert row["images"] == 0
    assert row["f1"] is row["roc_auc"] is row["intervals"]["f1"] is None
    json.dumps(result, allow_nan=False)


def test_compute_metrics_without_resamples():
    result = compute_metrics(
        predictions(1), CLASSES, {"accuracy": np.ones(1)}, EvaluationOptions(2, 0)
    )
    assert result["accuracy"] == 1
    assert result["intervals"] == {}
    assert result["macro_roc_auc"] is None
    json.dumps(result, allow_nan=False)


def test_multi_label_metrics_match_scikit_learn():
    found = predictions(multi_label=True)
    guesses = found.probabilities() >= 0.5
    result = compute_metrics(found, CLASSES, {}, EvaluationOptions(5, 10))
    assert result["exact_match"] == metrics.accuracy_score(found.labels, guesses)
    expected = metrics.f1_score(found.labels[:, :3], guesses[:, :3], average="macro")
    assert result["macro_f1"] == pytest.approx(expected)
    assert "confusion_matrix" not in result
    assert "top_k_accuracy" not in result


def losses_of(scores, labels):
    probabilities = to_probabilities(scores).numpy()
    return -np.log(probabilities[np.arange(len(labels)), labels])


def test_calibrated_metrics_use_validation_temperature():
    found, validation = predictions(), predictions(2000, seed=1)
    metrics_without = compute_metrics(found, CLASSES, {}, EvaluationOptions(5, 0))
    result = add_calibrated_metrics(
        metrics_without, found, validation, losses_of, EvaluationOptions(5, 100)
    )
    temperature = result["temperature"]
    assert temperature == fit_temperature(validation.scores, validation.labels) > 1
    expected = losses_of(found.scores / np.float32(temperature), found.labels).mean()
    assert result["calibrated_loss"] == pytest.approx(expected, rel=1e-6)
    assert 0 < result["calibrated_ece"] < result["ece"]
    assert not result["cross_fitted"]
    assert set(result["intervals"]) == {"calibrated_loss", "calibrated_ece"}
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high, name
        assert low < high

    sure = Predictions(9 * np.eye(4), np.arange(4), tuple("abcd"))
    result = add_calibrated_metrics(
        metrics_without, found, sure, losses_of, EvaluationOptions(5, 0)
    )
    assert [result[name] for name in ("temperature", "calibrated_loss", "calibrated_ece")] == [
        None,
        None,
        None,
    ]


def test_calibrated_metrics_are_cross_fitted():
    found = predictions(41)
    metrics_without = compute_metrics(found, CLASSES, {}, EvaluationOptions(5, 0))
    result = add_calibrated_metrics(
        metrics_without, found, found, losses_of, EvaluationOptions(5, 0)
    )
    assert result["cross_fitted"]
    assert result["temperature"] == fit_temperature(found.scores, found.labels)
    even, odd = (fit_temperature(found.scores[n::2], found.labels[n::2]) for n in (0, 1))
    cooled = found.scores.copy()
    cooled[0::2] /= np.float32(odd)
    cooled[1::2] /= np.float32(even)
    assert result["calibrated_loss"] == pytest.approx(
        losses_of(cooled, found.labels).mean(), rel=1e-6
    )
    # The temperature looks better on the images that it was fitted on.
    same = losses_of(found.scores / np.float32(result["temperature"]), found.labels).mean()
    assert result["calibrated_loss"] > same

    # One half is all correct, so it has no best temperature.
    sure = Predictions(9 * np.eye(4), np.array([1, 1, 0, 3]), tuple("abcd"))
    result = add_calibrated_metrics(metrics_without, sure, sure, losses_of, EvaluationOptions(5, 0))
    assert result["temperature"] > 0
    assert result["calibrated_loss"] is None


class CountedScores(StoredScores):
    def __getitem__(self, rows):
        found = super().__getitem__(rows)
        assert found.size <= confusion._MAX_CHUNK, "more than a part in memory"
        return found


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_on_disk_give_the_same_metrics(monkeypatch, multi_label):
    monkeypatch.setattr(confusion, "_MAX_CHUNK", 60)
    found = predictions(41, multi_label=multi_label)
    stored = replace(found, scores=CountedScores([found.scores[:7], found.scores[7:]]))
    results = []
    for each in (found, stored):
        options = EvaluationOptions(5, 20)
        result = compute_metrics(each, CLASSES, {}, options)
        losses = lambda scores, labels: scores.mean(1)  # noqa: E731
        results.append(add_calibrated_metrics(result, each, each, losses, options))
    assert results[0] == results[1]


def test_full_disk_is_named(monkeypatch):
    def write(content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda: SimpleNamespace(write=write, close=lambda: None)
    )
    with pytest.raises(UserError, match=r"No space left.* TMPDIR"):
        StoredScores([np.zeros((2, 3))])


def test_worst_of_many_classes_have_intervals(monkeypatch):
    monkeypatch.setattr("library.evaluation.class_table.MAX_INTERVAL_CLASSES", 2)
    found = predictions()
    result = compute_metrics(found, CLASSES, {}, EvaluationOptions(5, 20))
    rows = sorted(result["classes"].values(), key=lambda row: row["f1"] or 9)
    assert ["intervals" in row for row in rows] == [True, True, False, False]
    assert result["intervals"]["macro_f1"]


def test_many_classes_give_confusion_cells():
    found = predictions(20)
    scores = np.pad(found.scores, ((0, 0), (0, 300)), constant_values=-9)
    many = Predictions(scores, found.labels, found.names)
    result = compute_metrics(many, [*map(str, range(304))], {}, EvaluationOptions(5, 0))
    assert "confusion_matrix" not in result
    matrix = np.zeros((4, 4), int)
    for true, predicted, images in result["confusion_cells"]:
        matrix[true, predicted] += images
    assert (
        matrix.tolist()
        == compute_metrics(found, CLASSES, {}, EvaluationOptions(5, 0))["confusion_matrix"]
    )
