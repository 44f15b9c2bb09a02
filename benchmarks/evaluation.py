"""How long the report of 10,000 images takes, how large it is, and how its intervals are had.

Beside scikit-learn, which works out the same measures for one resample after another. The last
line is one JSON object; `seconds_of_limit` and `megabytes_of_limit` are shares of 10 s and 5 MB.

    python -m benchmarks.evaluation
"""

import json
import os
import time
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn import metrics

from library.evaluation.evaluate import EvaluationResult
from library.evaluation.metrics import MetricOptions, calibrate, measure
from library.evaluation.predictions import Predictions
from library.models.scores import to_probabilities
from library.reporting.report import MISTAKES, Subject, make_report

IMAGES, RESAMPLES, PEER_RESAMPLES = 10_000, 1000, 3
LIMIT_SECONDS, LIMIT_MEGABYTES = 10, 5


def main():
    """Measure with 10 and with 100 classes; print what was found."""
    found = {}
    for classes in (10, 100):
        predictions, losses = make_predictions(classes)
        start = time.perf_counter()
        measures = make_measures(predictions, losses, classes)
        measured = time.perf_counter() - start
        page = make_page(predictions, losses, measures, classes)
        seconds = time.perf_counter() - start
        megabytes = len(page.encode()) / 1e6
        peer = peer_seconds(predictions, classes)
        print(
            f"{classes} classes: report {seconds:.2f} s, {megabytes:.2f} MB; measures "
            f"{measured:.2f} s, by scikit-learn one after another {peer:.0f} s"
        )
        found[f"classes_{classes}"] = {
            "seconds_of_limit": round(seconds / LIMIT_SECONDS, 3),
            "megabytes_of_limit": round(megabytes / LIMIT_MEGABYTES, 3),
            "times_faster_than_scikit_learn": round(peer / measured, 1),
        }
    print(json.dumps(found))


def make_predictions(classes):
    """Return Predictions of a network that is right more often than not, and their losses."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, IMAGES)
    scores = random.normal(size=(IMAGES, classes)) + 3 * np.eye(classes)[labels]
    scores = scores.astype(np.float32)
    probabilities = np.asarray(to_probabilities(scores))
    names = tuple(f"class {label}/{n:05d}.jpg" for n, label in enumerate(labels))
    losses = -np.log(probabilities[np.arange(IMAGES), labels])
    return Predictions(scores, probabilities, labels, names), losses


def make_measures(found, losses, classes):
    """Return what evaluation works out."""
    values = {"loss": losses, "accuracy": found.classes == found.labels}
    names = [f"class {n}" for n in range(classes)]
    asked = MetricOptions(bootstrap_samples=RESAMPLES)
    measures = measure(found, names, values, asked)
    return calibrate(measures, found, found, lambda scores: losses, asked)


def make_page(found, losses, measures, classes):
    """Return the report, with thumbnails of noise, which compresses worst."""
    judgment = EvaluationResult(found, losses, measures)
    counts = tuple(np.bincount(found.labels, minlength=classes).tolist())
    split = SimpleNamespace(name="test", examples=IMAGES, class_counts=counts, rejected_count=0)
    row = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.0, "validation_accuracy": 0.5}
    subject = Subject(
        folder="out/benchmark/best",
        name="test",
        classes=tuple(f"class {n}" for n in range(classes)),
        metrics={"epoch": 50},
        network="none",
        settings={},
        splits=(split,),
        rows=[{"epoch": n, **row} for n in range(100)],
    )
    count = len(judgment.worst_mistakes(MISTAKES))
    images = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)
    return make_report(subject, judgment, images)


def peer_seconds(found, classes):
    """Return how long scikit-learn takes for all resamples, from a few."""
    random = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(PEER_RESAMPLES):
        drawn = random.integers(IMAGES, size=IMAGES)
        labels, guesses = found.labels[drawn], found.classes[drawn]
        probabilities = found.probabilities[drawn].astype(np.float64)
        truth = labels[:, np.newaxis] == np.arange(classes)
        metrics.accuracy_score(labels, guesses)
        metrics.precision_recall_fscore_support(labels, guesses, zero_division=0)
        metrics.roc_auc_score(truth, probabilities, average=None)
        metrics.average_precision_score(truth, probabilities, average=None)
    return (time.perf_counter() - start) / PEER_RESAMPLES * RESAMPLES


if __name__ == "__main__":
    main()
