"""Metrics of a whole split, batch by batch, compared with scikit-learn and with `evaluate`."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from library.errors import DataError, SettingsError
from library.evaluation.metrics import EvaluationOptions, compute_metrics
from library.evaluation.predictions import Predictions
from library.evaluation.split_metric import SPLIT_METRICS, is_split_metric, make_split_metric
from library.messages import ChoiceError
from library.models.scores import to_probabilities

CLASSES = ("a, b: c", "dog", "big cat", "absent")
MACRO = [each for each in SPLIT_METRICS if ":" not in each]
NAMES = [*MACRO, "recall:a, b: c", "precision:dog", "recall:big cat"]
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 301)
SCORES = (RANDOM.normal(size=(301, 4)) + np.eye(4)[LABELS]).round(1).astype(np.float32)
MULTI_LABELS = (RANDOM.random((301, 4)) < (0.2, 0.5, 0.7, 0)).astype(np.float32)


def split_of(labels, **more):
    is_multi_label = labels.ndim == 2
    counts = labels.sum(0) if is_multi_label else np.bincount(labels, minlength=4)
    values = {"classes": CLASSES, "class_counts": tuple(counts), "examples": len(labels)}
    return SimpleNamespace(
        name="validation", **{**values, "is_multi_label": is_multi_label, **more}
    )


def batches_of(labels, size=32):
    """Batches, the last of which is smaller, and an empty one."""
    starts = [*range(0, len(labels), size), len(labels)]
    return ((labels[n : n + size], SCORES[n : n + size]) for n in starts)


def by_scikit_learn(name, labels):
    probabilities = np.asarray(to_probabilities(SCORES, multi_label=labels.ndim == 2))
    truth, guesses = labels, SCORES > 0
    if labels.ndim == 1:
        if name == "balanced_accuracy":
            guesses = SCORES.argmax(1)
            return metrics.recall_score(labels, guesses, labels=range(3), average="macro")
        truth, guesses = (np.eye(4)[each] for each in (labels, SCORES.argmax(1)))
    kind, _, class_name = name.partition(":")
    columns = [CLASSES.index(class_name)] if class_name else range(3)
    function, values = {
        "macro_f1": (metrics.f1_score, guesses),
        "macro_roc_auc": (metrics.roc_auc_score, probabilities),
        "macro_pr_auc": (metrics.average_precision_score, probabilities),
        "recall": (metrics.recall_score, guesses),
        "precision": (metrics.precision_score, guesses),
    }[kind]
    return np.mean([function(truth[:, each], values[:, each]) for each in columns])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [LABELS, MULTI_LABELS], ids=["single", "multi"])
def test_metric_matches_scikit_learn_and_evaluate(name, labels):
    assert is_split_metric(name)
    split = split_of(labels)
    if name == "balanced_accuracy" and split.is_multi_label:
        with pytest.raises(SettingsError, match="balanced_accuracy"):
            make_split_metric(name, split)
        return
    metric = make_split_metric(name, split)
    value = metric.compute(batches_of(labels))
    assert metric.name == name
    assert value == pytest.approx(by_scikit_learn(name, labels))
    assert np.isnan(metric.compute([(labels[:0], SCORES[:0])]))
    predictions = Predictions(SCORES, labels, (), split.is_multi_label)
    found = compute_metrics(predictions, CLASSES, {}, EvaluationOptions(5, 0))
    kind, _, class_name = name.partition(":")
    if class_name:
        assert value == found["classes"][class_name][kind]
    else:
        theirs = found[name.replace("balanced_accuracy", "macro_recall")]
        assert value == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "names"),
    [("recall:dgo", ("'dog'", "a, b: c")), ("precision:", ("dog",)), ("recall:Dog", ("'dog'",))],
)
def test_unknown_class_is_refused(name, names):
    with pytest.raises(ChoiceError) as caught:
        make_split_metric(name, split_of(LABELS))
    assert all(each in str(caught.value) for each in (name, *names))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("recall:absent", split_of(LABELS)),
        ("macro_roc_auc", split_of(np.zeros(3, np.int64))),
        ("macro_f1", split_of(np.zeros((3, 4)))),
    ],
)
def test_undefined_metric_is_refused(name, split):
    with pytest.raises(DataError, match=rf"{name} .*validation"):
        make_split_metric(name, split)


def test_other_names_are_no_split_metrics():
    for name in ("loss", "recall", "macro_f1:dog", "f1:dog", "recall_dog"):
        assert not is_split_metric(name)
