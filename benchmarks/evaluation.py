"""Time and size of the report about 10,000 images, and the time of its metrics with intervals.

Compared with scikit-learn, which computes the same metrics for one resample after another. The last
line is one JSON object; `seconds_of_limit` and `megabytes_of_limit` are shares of 10 s and 5 MB.

    python -m benchmarks.evaluation
"""

import json
import time
from types import SimpleNamespace

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import numpy as np
from sklearn import metrics

from library.evaluation.evaluate import EvaluationResult
from library.evaluation.metrics import EvaluationOptions, add_calibrated_metrics, compute_metrics
from library.evaluation.predictions import Predictions
from library.models.scores import to_probabilities
from library.reporting.report import Report, render_report, worst_mistakes

IMAGES, RESAMPLES, PEER_RESAMPLES = 10_000, 1000, 3
LIMIT_SECONDS, LIMIT_MEGABYTES = 10, 5


def main() -> None:
    """Time reports with 10 and with 100 classes."""
    results = {}
    for classes in (10, 100):
        predictions, losses = make_predictions(classes)
        start = time.perf_counter()
        result = EvaluationResult(
            None, None, predictions, losses, make_metrics(predictions, losses, classes)
        )
        metric_seconds = time.perf_counter() - start
        page = make_page(result, classes)
        seconds = time.perf_counter() - start
        megabytes = len(page.encode()) / 1e6
        peer = peer_seconds(predictions, classes)
        print(
            f"{classes} classes: report {seconds:.2f} s, {megabytes:.2f} MB; metrics "
            f"{metric_seconds:.2f} s, by scikit-learn one resample after another {peer:.0f} s"
        )
        results[f"classes_{classes}"] = {
            "seconds_of_limit": round(seconds / LIMIT_SECONDS, 3),
            "megabytes_of_limit": round(megabytes / LIMIT_MEGABYTES, 3),
            "times_faster_than_scikit_learn": round(peer / metric_seconds, 1),
        }
    print(json.dumps(results))


def make_predictions(classes: int) -> tuple[Predictions, np.ndarray]:
    """Return Predictions of a network that is correct more often than not, and their losses."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, IMAGES)
    scores = random.normal(size=(IMAGES, classes)) + 3 * np.eye(classes)[labels]
    scores = scores.astype(np.float32)
    probabilities = np.asarray(to_probabilities(scores))
    names = tuple(f"class {label}/{n:05d}.jpg" for n, label in enumerate(labels))
    losses = -np.log(probabilities[np.arange(IMAGES), labels])
    return Predictions(scores, labels, names), losses


def make_metrics(predictions: Predictions, losses: np.ndarray, classes: int) -> dict:
    """Return what an evaluation computes."""
    values = {"loss": losses, "accuracy": predictions.classes == predictions.labels}
    names = [f"class {n}" for n in range(classes)]
    options = EvaluationOptions(top_k=5, bootstrap_samples=RESAMPLES)
    found = compute_metrics(predictions, names, values, options)
    return add_calibrated_metrics(
        found, predictions, predictions, lambda scores, labels: losses, options
    )


def make_page(result: EvaluationResult, classes: int) -> str:
    """Return the report, with thumbnails of noise, which compresses worst."""
    counts = tuple(np.bincount(result.predictions.labels, minlength=classes).tolist())
    split = SimpleNamespace(name="test", examples=IMAGES, class_counts=counts, rejected_count=0)
    row = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.0, "validation_accuracy": 0.5}
    shape = (len(worst_mistakes(result)), 224, 224, 3)
    report = Report(
        title="out/benchmark/best, epoch 50",
        split="test",
        classes=tuple(f"class {n}" for n in range(classes)),
        network="none",
        result=result,
        mistake_images=np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        splits=(split,),
        history=[{"epoch": n, **row} for n in range(100)],
        epoch=50,
    )
    return render_report(report)


def peer_seconds(predictions: Predictions, classes: int) -> float:
    """Return how long scikit-learn takes for all resamples, from a few."""
    random = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(PEER_RESAMPLES):
        drawn = random.integers(IMAGES, size=IMAGES)
        labels, predicted = predictions.labels[drawn], predictions.classes[drawn]
        probabilities = predictions.probabilities(drawn).astype(np.float64)
        truth = labels[:, np.newaxis] == np.arange(classes)
        metrics.accuracy_score(labels, predicted)
        metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
        metrics.roc_auc_score(truth, probabilities, average=None)
        metrics.average_precision_score(truth, probabilities, average=None)
    return (time.perf_counter() - start) / PEER_RESAMPLES * RESAMPLES


if __name__ == "__main__":
    main()
