"""Find and correct wrong labels in the sample, against cleanlab; time and memory for many images.

A tenth of the sample's training labels is flipped: at random, and to the class with which each one
is confused most. Networks of five folds give out-of-fold probabilities, and `run.py clean` ranks
the images. For each kind and seed:

- average precision of the ranking; of the same without neighbors; and of cleanlab's scores on the
  same probabilities, by its default method (self-confidence) and by the best of its three;
- test accuracy after training on the true labels, on the flipped ones, on those that a person would
  have corrected who looks at as many images as were flipped, and on those that take the suggestion
  wherever `clean` suspects a label. The share regained is (corrected - flipped) / (true - flipped).

Test images are the 10,000 of Fashion-MNIST if Debian's package is installed, else the sample's.
With --frozen, instead: the share regained by a person who looks at the first 5, 10, 15 and 20 % of
the ranking, when a classifier on frozen features of EfficientNet-Lite0 learns from the labels. It
is far more sensitive to wrong labels than the sample's network, which loses hardly anything to
labels that are flipped at random.

With --scale, instead: time and memory of ranking 100,000 images of 100 classes with embeddings of
1,280 values, in which a tenth of the labels is wrong. The last line is a JSON object of all means.

    python -m benchmarks.cleaning [--seeds 3] [--epochs 40] [--folder DIR]
    python -m benchmarks.cleaning --frozen [--seeds 5]
    python -m benchmarks.cleaning --scale
"""

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.programs import ROOT, call, call_project, convert

SAMPLE = ROOT / "dataset" / "sample.zip"
SHARE, FOLDS = 0.1, 5
IMAGES, CLASSES, SIZE = 100_000, 100, 1_280
# The class with which the sample's network confuses each class most.
CONFUSED = {
    "Ankle boot": "Sneaker",
    "Bag": "T-shirt_top",
    "Coat": "Pullover",
    "Dress": "Coat",
    "Pullover": "Coat",
    "Sandal": "Sneaker",
    "Shirt": "T-shirt_top",
    "Sneaker": "Ankle boot",
    "T-shirt_top": "Shirt",
    "Trouser": "Dress",
}
# (split, file, label)
Rows = list[tuple[str, str, str]]


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="keeps the runs, so that a second call resumes")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    if options.scale:
        print(json.dumps(measure_scale()))
        return
    if options.frozen:
        print(json.dumps(measure_frozen(options.seeds)))
        return
    results: dict[str, list[dict[str, float]]] = {"random": [], "confusable": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        rows = read_rows(folder)
        for seed in range(options.seeds):
            true = train(folder / f"{seed}-true", rows, seed, options.epochs)
            print(f"seed {seed}: accuracy {true:.4f} with the true labels", flush=True)
            for kind, found in results.items():
                found.append(measure(folder / f"{seed}-{kind}", rows, seed, options.epochs, true))
                print(f"seed {seed}, {kind}: {json.dumps(found[-1])}", flush=True)
    print(json.dumps({kind: summarize(found) for kind, found in results.items()}))


def summarize(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means over the seeds; shares regained are those of the mean accuracies."""
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    lost = means["true"] - means["flipped"]
    for name in ("by_person", "by_suggestion"):
        means[f"regained_{name}"] = (means[name] - means["flipped"]) / lost
    return {name: round(value, 4) for name, value in means.items()}


def read_rows(folder: Path) -> Rows:
    """Unpack the images and return their rows, sorted."""
    images = folder / "images"
    with zipfile.ZipFile(SAMPLE) as archive:
        archive.extractall(images)
    everything = folder / "fashion_mnist.zip"
    call([sys.executable, "-m", "dataset.make_sample", "--all", everything], check=False)
    if everything.exists():
        with zipfile.ZipFile(everything) as archive:
            names = [each for each in archive.namelist() if each.startswith("test/")]
            archive.extractall(images, names)
    files = sorted(each.relative_to(folder) for each in images.glob("*/*/*.png"))
    return [(file.parts[1], file.as_posix(), file.parts[2]) for file in files]


def measure(folder: Path, rows: Rows, seed: int, epochs: int, true: float) -> dict[str, float]:
    """Return the figures of one kind of wrong labels, the last word of the folder's name.

    Args:
        folder: Where to write data and runs.
        rows: With true labels.
        seed: Of the flips and of the trainings.
        epochs: Of each training.
        true: Accuracy with the true labels.
    """
    noisy = flip(rows, folder.name.rpartition("-")[2], seed)
    truth = {file: label for _, file, label in rows}
    flipped = {file for _, file, label in noisy if label != truth[file]}
    accuracy = train(folder, noisy, seed, epochs)
    folds = folder.with_name(f"{folder.name}-folds")
    cross_validate(folds, noisy, seed, epochs)
    call_project("run.py", "clean", *options_of(folds))
    with (folds / "run" / "cleaning" / "ranking.csv").open(encoding="utf-8") as file:
        ranking = list(csv.DictReader(file))
    figures = average_precisions(folds, ranking, flipped)
    print(f"{folder.name}: {json.dumps(figures)}", flush=True)
    # A person looks at as many images as were flipped, and gives the true label to each.
    seen = {each["file"] for each in ranking[: len(flipped)]}
    by_person = [(split, file, truth[file] if file in seen else own) for split, file, own in noisy]
    suggested = {each["file"]: each["suggestion"] for each in ranking if each["suspected"] == "1"}
    by_suggestion = [(split, file, suggested.get(file, own)) for split, file, own in noisy]
    figures |= {"suspected": len(suggested), "true": true, "flipped": accuracy}
    for name, corrected in (("by_person", by_person), ("by_suggestion", by_suggestion)):
        figures[name] = train(folder.with_name(f"{folder.name}-{name}"), corrected, seed, epochs)
        figures[f"regained_{name}"] = round((figures[name] - accuracy) / (true - accuracy), 4)
    return figures


def average_precisions(
    folder: Path, ranking: Sequence[dict[str, str]], flipped: set[str]
) -> dict[str, float]:
    """Return the average precision of the ranking, of it without neighbors, and of cleanlab's.

    Args:
        folder: That of the cross-validation.
        ranking: The rows of ranking.csv.
        flipped: The files with wrong labels.
    """
    from cleanlab.rank import get_label_quality_scores

    from library.cleaning.ranking import rank
    from library.prediction.image_outputs import read_image_outputs

    outputs = read_image_outputs(folder / "run" / "out_of_fold.npz")
    is_wrong = np.array([each in flipped for each in outputs.names])
    scores = {each["file"]: float(each["score"]) for each in ranking}

    def precision(quality: np.ndarray) -> float:
        return round(float(average_precision_score(is_wrong, -quality)), 4)

    cleanlab = {
        method: precision(
            get_label_quality_scores(outputs.labels, outputs.probabilities, method=method)
        )
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    }
    found = {
        "clean": precision(np.array([scores[each] for each in outputs.names])),
        "without_neighbors": precision(rank(outputs, None, []).scores),
        "cleanlab_default": cleanlab["self_confidence"],
        "cleanlab_best": max(cleanlab.values()),
    }
    return {f"ap_{name}": value for name, value in found.items()}


def flip(rows: Rows, kind: str, seed: int) -> Rows:
    """Return rows in which a tenth of the training labels are wrong."""
    random = np.random.default_rng(seed)
    training = [number for number, (split, *_) in enumerate(rows) if split == "train"]
    noisy = list(rows)
    for number in random.choice(training, round(SHARE * len(training)), replace=False):
        split, file, label = rows[number]
        others = sorted(CONFUSED.keys() - {label})
        wrong = CONFUSED[label] if kind == "confusable" else others[random.integers(len(others))]
        noisy[number] = (split, file, wrong)
    return noisy


def train(folder: Path, rows: Rows, seed: int, epochs: int) -> float:
    """Convert and train, and return the test accuracy."""
    write_data(folder, rows)
    call_project("run.py", *options_of(folder), "--random_seed", seed, "--train_epochs", epochs)
    called = call_project("run.py", "evaluate", *options_of(folder), "--bootstrap_samples", 0)
    return float(json.loads(called.output)["accuracy"])


def options_of(folder: Path) -> list[str]:
    """Return the options that name the data and the run."""
    return [
        *("--config_set", "sample", "--data_dir", str(folder / "data")),
        *("--run_dir", str(folder / "run"), "--no-report"),
    ]


def write_data(folder: Path, rows: Rows, *options: object) -> None:
    """Convert rows whose files lie in the folder above: their splits, or as options say."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder.with_name(f"{folder.name}.csv")
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("SET", "FILE", "LABEL"), *rows])
    if options:
        call_project("convert_dataset.py", "--dataset_dir", table, *options)
        return
    for split in ("train", "validation", "test"):
        convert(split, table / split, folder / "data" / split)


def cross_validate(folder: Path, rows: Rows, seed: int, epochs: int) -> None:
    """Divide the training rows into folds, and train a network for each."""
    training = [row for row in rows if row[0] == "train"]
    words = ["--csv_columns", "FILE,LABEL", "--split", f"folds={FOLDS}"]
    write_data(folder, training, *words, "--tfrecord_dir", folder / "data")
    learning = ["--random_seed", seed, "--train_epochs", epochs, "--bootstrap_samples", 0]
    call_project("run.py", "cross_validate", *options_of(folder), *learning)


def measure_frozen(seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return mean and standard deviation of the shares regained, for each kind of wrong labels."""
    from benchmarks.selection import CLASSES as NAMES
    from benchmarks.selection import learn_frozen, read_images, read_test

    images, truth = read_images("train")
    test, test_labels = read_test()
    learn = learn_frozen(images, test)
    classes = sorted(NAMES)
    rows: Rows = [("train", str(n), classes[label]) for n, label in enumerate(truth)]

    def accuracy(labels: np.ndarray) -> float:
        return float((learn(images, labels, 0)(test)[0].argmax(1) == test_labels).mean())

    true, result = accuracy(truth), {}
    for kind in ("random", "confusable"):
        shares: dict[str, list[float]] = {}
        for seed in range(seeds):
            noisy = np.array([classes.index(label) for *_, label in flip(rows, kind, seed)])
            ranking = rank_frozen(learn, images, noisy, seed)
            flipped = accuracy(noisy)
            trials = {"suggestions": np.where(ranking.is_suspected, ranking.suggestions, noisy)}
            for percent in (5, 10, 15, 20):
                seen = ranking.order[: len(truth) * percent // 100]
                trials[f"{percent} %"] = noisy.copy()
                trials[f"{percent} %"][seen] = truth[seen]
            for name, corrected in trials.items():
                share = (accuracy(corrected) - flipped) / (true - flipped)
                shares.setdefault(name, []).append(share)
            line = {name: round(found[-1], 2) for name, found in shares.items()}
            print(f"{kind}, seed {seed}: {flipped:.4f} of {true:.4f}; regained {line}", flush=True)
        result[kind] = {
            name: [round(float(np.mean(found)), 3), round(float(np.std(found, ddof=1)), 3)]
            for name, found in shares.items()
        }
    return result


def rank_frozen(learn: Any, images: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Return the Ranking of images from out-of-fold predictions on frozen features."""
    from library.cleaning.neighbor_votes import find_votes
    from library.cleaning.ranking import rank
    from library.prediction.image_outputs import ImageOutputs

    fold_of = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    probabilities = np.zeros((len(labels), len(CONFUSED)), np.float32)
    for fold in range(FOLDS):
        own = fold_of == fold
        probabilities[own], embeddings = learn(images[~own], labels[~own], seed)(images[own])
        if not fold:
            pooled = np.zeros((len(labels), embeddings.shape[1]), np.float16)
        pooled[own] = embeddings
    names = [str(number) for number in range(len(labels))]
    outputs = ImageOutputs(names, tuple(sorted(CONFUSED)), labels, probabilities, pooled)
    return rank(outputs, find_votes(outputs), [])


def measure_scale() -> dict[str, float]:
    """Return seconds, megabytes and average precision for many simulated images."""
    from library.cleaning.neighbor_votes import find_votes
    from library.cleaning.ranking import rank
    from library.prediction.image_outputs import ImageOutputs

    random = np.random.default_rng(0)
    truth = random.integers(CLASSES, size=IMAGES)
    is_wrong = random.random(IMAGES) < SHARE
    labels = np.where(is_wrong, random.integers(CLASSES, size=IMAGES), truth)
    centers = random.standard_normal((CLASSES, SIZE), np.float32) / 2
    directions = random.standard_normal((40, SIZE), np.float32) / 6
    embeddings = np.empty((IMAGES, SIZE), np.float16)
    logits = random.standard_normal((IMAGES, CLASSES), np.float32)
    logits[np.arange(IMAGES), truth] += 5
    for start in range(0, IMAGES, 10_000):
        rows = slice(start, start + 10_000)
        own = random.standard_normal((len(truth[rows]), 40), np.float32) @ directions
        noise = random.standard_normal((len(truth[rows]), SIZE), np.float32) / 3
        embeddings[rows] = centers[truth[rows]] + own + noise
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(1, keepdims=True)
    names = [f"class/{number:06d}.jpg" for number in range(IMAGES)]
    classes = tuple(f"class {number}" for number in range(CLASSES))
    outputs = ImageOutputs(names, classes, labels, probabilities, embeddings)
    start, cpu = time.perf_counter(), time.process_time()
    ranking = rank(outputs, find_votes(outputs), [])
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "ap": average_precision_score(labels != truth, -ranking.scores),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
