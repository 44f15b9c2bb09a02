"""Accuracy on corrupted images: noise, blur, JPEG, brightness and contrast at five strengths.

After Hendrycks and Dietterich 2019 (arXiv 1903.12261). The parameters are those of the authors'
code for ImageNet-C, images of 224 pixels; for inputs nearer to 32 pixels, in ratio, those for
CIFAR-10-C. Blur counts in pixels, so it is scaled from there to the edge of the input.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from library.dataset.worker_pool import available_cores
from library.evaluation.intervals import share_interval
from library.evaluation.predictions import Predictions, late_bar
from library.evaluation.table import format_number, format_table
from library.figures.training_curves import INK, draw_figure
from library.files import write_file
from library.inputs.corruption import explain_read_errors
from library.inputs.interfaces import EvaluationInputs
from library.models.inference import Inference
from library.saving.snapshots import Snapshot

CORRUPTION_TABLE, CORRUPTION_FIGURE = ".corruptions.csv", ".corruptions.svg"
STRENGTHS = 5
_LARGE_EDGE, _SMALL_EDGE = 224, 32

# (uint8 pixels (height, width, 1 or 3), parameter, random) → pixels in [0, 255], of any type
Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def add_noise(pixels: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise; `level` is its standard deviation, as a share of 255."""
    return pixels + 255 * level * random.standard_normal(pixels.shape, np.float32)


def blur(pixels: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian; `level` is its standard deviation in pixels."""
    # The kernel reaches as far as that of scikit-image, which the authors use.
    size = 2 * int(4 * level + 0.5) + 1
    border = cv2.BORDER_REPLICATE
    found = cv2.GaussianBlur(pixels.astype(np.float32), (size, size), level, borderType=border)
    return found.reshape(pixels.shape)


def compress(pixels: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Compress as JPEG; `level` is the quality."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        file, "jpeg", quality=int(level)
    )
    return np.asarray(Image.open(file)).reshape(pixels.shape)


def brighten(pixels: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Add `level`, as a share of 255, to the value of HSV: the highest of the channels."""
    # Hue and saturation stay if all channels grow by the same factor.
    value = pixels.max(2, keepdims=True).astype(np.float32)
    raised = np.minimum(value + 255 * level, 255)
    # Black has no hue: it becomes gray.
    return np.where(value > 0, pixels * (raised / np.maximum(value, 1)), raised)


def reduce_contrast(pixels: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Draw pixels towards the mean of their channel, to `level` of their distance."""
    means = pixels.mean((0, 1), keepdims=True, dtype=np.float32)
    return (pixels - means) * level + means


@dataclass(frozen=True)
class Corruption:
    """A corruption and its parameters, the weakest first.

    Attributes:
        apply: The function.
        large: Parameters for images of 224 pixels.
        small: Parameters for images of 32 pixels.
        is_in_pixels: Whether they are lengths in pixels.
    """

    apply: Corrupt
    large: tuple[float, ...]
    small: tuple[float, ...]
    is_in_pixels: bool = False

    def levels(self, edge: int) -> list[float]:
        """Return the parameters for a shorter edge of so many pixels."""
        origin = _SMALL_EDGE if is_small(edge) else _LARGE_EDGE
        levels = self.small if is_small(edge) else self.large
        return [each * edge / origin if self.is_in_pixels else each for each in levels]


CORRUPTIONS = {
    "gaussian_noise": Corruption(
        add_noise, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)
    ),
    "gaussian_blur": Corruption(blur, (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1), is_in_pixels=True),
    "jpeg": Corruption(compress, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
    "brightness": Corruption(brighten, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(
        reduce_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)
    ),
}


def is_small(edge: int) -> bool:
    """Return whether an edge in pixels is nearer to 32 than to 224, in ratio."""
    return edge**2 < _SMALL_EDGE * _LARGE_EDGE


def corrupt(pixels: np.ndarray, name: str, strength: int, seed: Sequence[int] = (0,)) -> np.ndarray:
    """Corrupt an image.

    Args:
        pixels: uint8 (height, width, 1 or 3).
        name: One of CORRUPTIONS.
        strength: 1 to 5.
        seed: Of the noise, which is the same at all strengths.

    Returns:
        uint8, of the same shape.
    """
    corruption = CORRUPTIONS[name]
    level = corruption.levels(min(pixels.shape[:2]))[strength - 1]
    found = corruption.apply(pixels, level, np.random.default_rng(seed))
    return np.rint(np.clip(found, 0, 255)).astype(np.uint8)


def measure_corruptions(
    snapshot: Snapshot,
    inputs: EvaluationInputs,
    predictions: Predictions,
    *,
    seed: int = 0,
    xla: bool = False,
) -> dict[str, Any]:
    """Return a network's accuracy on corrupted images, as a dict for JSON.

    Args:
        snapshot: The network.
        inputs: The split.
        predictions: Those for its images as they are, perhaps only the first ones.
        seed: Of the noise; each image's depends on it and on the image's position.
        xla: Whether XLA compiles the network.

    Returns:
        The accuracy (if multi-label, of whole images) with its interval for each corruption and
        strength, and errors: of a corruption the mean over strengths, and the mean over corruptions
        with how much it exceeds the error without corruption, as a difference and as a ratio.

    Raises:
        DataError: An image can't be read.
    """
    score = Inference(snapshot.network, xla=xla)
    correct = {name: np.zeros(STRENGTHS, np.int64) for name in CORRUPTIONS}
    count, start = len(predictions), 0
    steps = -(-count // inputs.batch_size)
    with explain_read_errors(inputs), ThreadPoolExecutor(available_cores()) as pool:
        batches = late_bar(inputs.named_batches(), "corruptions", " batches", steps)
        for images, *_ in islice(batches, steps):
            pixels = np.asarray(images)
            labels = predictions.labels[start : start + len(pixels)]
            seeds = [(seed, start + n) for n in range(len(pixels))]
            for name, found in correct.items():
                for strength in range(1, STRENGTHS + 1):
                    apply = partial(_corrupt_one, name, strength)
                    scores = score(np.stack([*pool.map(apply, pixels, seeds)]))
                    some = Predictions(scores, labels, (), predictions.multi_label)
                    found[strength - 1] += np.count_nonzero(some.correct)
            start += len(pixels)
    edge = min(snapshot.network.input_shape[1:3])
    return _summarize({name: each / count for name, each in correct.items()}, predictions, edge)


def format_corruptions(found: dict[str, Any]) -> Iterator[str]:
    """Yield lines: a table of accuracies, and the mean errors."""
    head = ("corruption", *(f"strength {n + 1}" for n in range(STRENGTHS)), "mean error")
    rows = [
        (_label(name), *map(format_number, each["accuracy"]), format_number(each["error"]))
        for name, each in found["corruptions"].items()
    ]
    yield from format_table([head, *rows], left=(0,))
    ratio = found["error_ratio"]
    times = "" if ratio is None else f", {ratio:.2f} times as high"
    yield (
        f"mean corruption error {found['mean_corruption_error']:.4f}, without corruption "
        f"{found['clean_error']:.4f}{times}"
    )


def write_corruptions(table: Path, figure: Path, found: dict[str, Any]) -> None:
    """Write the accuracies as CSV, a row per corruption and strength, and as an SVG."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("corruption", "strength", "parameter", "accuracy", "low", "high"))
    writer.writerow(("none", 0, "", found["clean_accuracy"], *found["clean_interval"]))
    for name, each in found["corruptions"].items():
        columns = (each["parameters"], each["accuracy"], each["intervals"])
        for n, (parameter, accuracy, interval) in enumerate(zip(*columns, strict=True)):
            writer.writerow((name, n + 1, parameter, accuracy, *interval))
    write_file(table, text.getvalue())
    write_file(figure, draw_corruptions(found))


def draw_corruptions(found: dict[str, Any], size: tuple[float, float] = (6.5, 4)) -> bytes:
    """Return the chart: accuracy over strength, 0 without corruption, a line per corruption."""

    def draw(axes: Any, name: str) -> None:
        for number, (key, each) in enumerate(found["corruptions"].items()):
            values = [found["clean_accuracy"], *each["accuracy"]]
            axes.plot(range(STRENGTHS + 1), values, marker="os^Dv"[number], label=_label(key))
        axes.set_ylim(0, 1.02)
        axes.set_title(name, color=INK)

    return draw_figure(("accuracy on corrupted images",), size, draw, "strength")


def _corrupt_one(name: str, strength: int, pixels: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    return corrupt(pixels, name, strength, seed)


def _summarize(
    shares: dict[str, np.ndarray], predictions: Predictions, edge: int
) -> dict[str, Any]:
    count, clean = len(predictions), float(predictions.correct.mean())
    error = float(np.mean([1 - each for each in shares.values()]))
    return {
        "parameters_of": "CIFAR-10-C" if is_small(edge) else "ImageNet-C",
        "clean_accuracy": clean,
        "clean_interval": share_interval(clean, count),
        "corruptions": {
            name: {
                "parameters": CORRUPTIONS[name].levels(edge),
                "accuracy": each.tolist(),
                "intervals": [share_interval(share, count) for share in each.tolist()],
                "error": float(1 - each.mean()),
            }
            for name, each in shares.items()
        },
        "clean_error": 1 - clean,
        "mean_corruption_error": error,
        "error_increase": error - (1 - clean),
        "error_ratio": error / (1 - clean) if clean < 1 else None,
    }


def _label(name: str) -> str:
    return name.replace("_", " ").replace("jpeg", "JPEG").replace("gaussian", "Gaussian")
