"""Time and size of the report about 10,000 images, and the time of its metrics with intervals.

Compared with scikit-learn, which computes the same metrics for one resample after another. Then the
same about 50,000 images of 2,000 classes, with the memory that it takes beside the predictions, and
the table with a row per image.

The last line is one JSON object; `seconds_of_limit` and `megabytes_of_limit` are shares of 10 s and
5 MB, and of 60 s and 1,000 MB of memory with many classes.

    python -m benchmarks.evaluation
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import numpy as np
from sklearn import metrics

from library.evaluation.confusion import row_chunks
from library.evaluation.evaluate import EvaluationResult
from library.evaluation.image_table import write_prediction_table
from library.evaluation.metrics import EvaluationOptions, add_calibrated_metrics, compute_metrics
from library.evaluation.predictions import Predictions
from library.reporting.mistakes import sample_correct, worst_mistakes
from library.reporting.report import Report, render_report

IMAGES, RESAMPLES, PEER_RESAMPLES = 10_000, 1000, 3
LIMIT_SECONDS, LIMIT_MEGABYTES = 10, 5
MANY_IMAGES, MANY_CLASSES, MANY_SECONDS, MANY_MEGABYTES = 50_000, 2_000, 60, 1_000


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
    results["many_classes"] = measure_many_classes()
    print(json.dumps(results))


def measure_many_classes() -> dict[str, float]:
    """Return the shares of the limits that a report about many classes takes."""
    predictions, losses = make_predictions(MANY_CLASSES, MANY_IMAGES)
    # Forget the peak of what came before (man 5 proc), so that the next is that of the report.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = peak_megabytes(), time.perf_counter()
    found = make_metrics(predictions, losses, MANY_CLASSES)
    page = make_page(EvaluationResult(None, None, predictions, losses, found), MANY_CLASSES)
    report_end = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        classes = [f"class {n}" for n in range(MANY_CLASSES)]
        write_prediction_table(Path(folder, "test.images.csv"), predictions, classes, losses)
    end, megabytes = time.perf_counter(), peak_megabytes() - before
    print(
        f"{MANY_IMAGES:,} images of {MANY_CLASSES:,} classes: report {report_end - start:.1f} s, "
        f"{len(page.encode()) / 1e6:.2f} MB; a row per image {end - report_end:.1f} s; "
        f"{megabytes:.0f} MB of memory"
    )
    return {
        "seconds_of_limit": round((end - start) / MANY_SECONDS, 3),
        "megabytes_of_limit": round(megabytes / MANY_MEGABYTES, 3),
    }


def peak_megabytes() -> float:
    """Return the most memory that this process has held, since a reset if there was one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def make_predictions(classes: int, images: int = IMAGES) -> tuple[Predictions, np.ndarray]:
    """Return Predictions of a network that is correct more often than not, and their losses."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, images)
    scores = random.standard_normal((images, classes), np.float32)
    scores[np.arange(images), labels] += 3
    names = tuple(f"class {label}/{n:05d}.jpg" for n, label in enumerate(labels))
    predictions = Predictions(scores, labels, names)
    losses = [
        -np.log(np.take_along_axis(predictions.probabilities(rows), labels[rows, np.newaxis], 1))
        for rows in row_chunks(scores)
    ]
    return predictions, np.concatenate(losses)[:, 0]


def make_metrics(predictions: Predictions, losses: np.ndarray, classes: int) -> dict:
    """Return what an evaluation computes."""
    values = {"loss": losses, "accuracy": predictions.classes == predictions.labels}
    names = [f"class {n}" for n in range(classes)]
    options = EvaluationOptions(top_k=5, bootstrap_samples=RESAMPLES)
    found = compute_metrics(predictions, names, values, options)

    def compute_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return -scores[np.arange(len(labels)), labels]

    return add_calibrated_metrics(found, predictions, predictions, compute_losses, options)


def make_page(result: EvaluationResult, classes: int) -> str:
    """Return the report, with thumbnails of noise, which compresses worst."""
    counts = tuple(np.bincount(result.predictions.labels, minlength=classes).tolist())
    split = SimpleNamespace(
        name="test", examples=len(result.losses), class_counts=counts, rejected_count=0
    )
    row = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.0, "validation_accuracy": 0.5}
    random = np.random.default_rng(0)
    counts_shown = (
        len(worst_mistakes(result.predictions, result.losses)),
        len(sample_correct(result.predictions)),
    )
    noise = [random.integers(0, 256, (n, 224, 224, 3), np.uint8) for n in counts_shown]
    report = Report(
        title="out/benchmark/best, epoch 50",
        split="test",
        classes=tuple(f"class {n}" for n in range(classes)),
        network="none",
        result=result,
        mistake_images=noise[0],
        correct_images=noise[1],
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
