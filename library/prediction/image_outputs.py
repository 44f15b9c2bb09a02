"""What a network says about every image of a split: probabilities and embeddings, in one pass.

Written as .npz: `header` (UTF-8 JSON: format, names, classes), `labels`, `probabilities` and, where
there are any, `embeddings` and `folds`. Large arrays of embeddings are float16: of 100,000 images
and 1,280 values, 256 MB instead of 512.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.errors import DataError, DivergedError, printable, reason_of
from library.evaluation.predictions import late_bar
from library.files import new_file
from library.inputs.corruption import explain_read_errors
from library.inputs.interfaces import EvaluationInputs
from library.prediction.predictor import Predictor
from library.saving.snapshots import Snapshot

_FORMAT = "image outputs, version 1"
# More values than these are kept as float16.
_MAX_FLOAT32_VALUES = 2**26
_MAX_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ImageOutputs:
    """Probabilities and embeddings of n images.

    Attributes:
        names: As converted, such as cat/7.jpg; <shard>/<number> where a record has no file name.
        classes: The class names in label order.
        labels: int64 (n,), or float32 zeros and ones (n, classes) if multi-label.
        probabilities: float32 (n, classes).
        embeddings: float32 (n, size), or float16 if they are large: the input of the layer that
            computes the scores; None if they were not asked for.
        folds: int64 (n,), from 1: the fold of each image, whose network did not train on it. Each
            network has embeddings of its own: compare only those of the same fold.
    """

    names: Sequence[str]
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray | None
    folds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.labels.ndim == 2


def collect_image_outputs(
    snapshot: Snapshot,
    inputs: EvaluationInputs,
    *,
    with_embeddings: bool = False,
    xla: bool = False,
) -> ImageOutputs:
    """Run a network on every image of a split.

    Args:
        snapshot: One snapshot, or several that were combined.
        inputs: The split, as EvaluationPipeline of project/inputs.py.
        with_embeddings: Collect the embeddings too.
        xla: Compile the network with XLA.

    Raises:
        DataError: An image can't be read.
        DivergedError: The network returns NaN or infinite values.
        SettingsError: The network has no embedding.
    """
    predictor = Predictor([snapshot], embedding=with_embeddings, xla=xla)
    count, size = inputs.examples, predictor.embedding_size
    classes = len(predictor.classes)
    labels = (
        np.zeros((count, classes), np.float32) if predictor.multi_label else np.zeros(count, int)
    )
    probabilities = np.empty((count, classes), np.float32)
    embeddings = np.empty((count, size), embedding_dtype(count, size))
    names: list[str] = []
    with explain_read_errors(inputs):
        batches = inputs.named_batches()
        for images, some_labels, some_names in late_bar(
            batches, "predicting", " batches", inputs.batches_per_epoch
        ):
            rows = slice(len(names), len(names) + len(images))
            names += [each.decode("utf-8", "replace") for each in some_names.numpy().tolist()]
            labels[rows] = some_labels
            probabilities[rows], found = predictor.predict(images)
            # Values that float16 can't hold are rare, and far from all others in any case.
            is_half = embeddings.dtype == np.float16
            embeddings[rows] = np.clip(found, -_MAX_FLOAT16, _MAX_FLOAT16) if is_half else found
            _check_finite(probabilities[rows], found, names[rows])
    return ImageOutputs(
        names,
        predictor.classes,
        labels,
        probabilities,
        embeddings if with_embeddings else None,
    )


def embedding_dtype(count: int, size: int) -> type[np.floating]:
    """Return the type in which that many embeddings of that size are kept."""
    return np.float32 if count * size <= _MAX_FLOAT32_VALUES else np.float16


def write_image_outputs(path: str | Path, outputs: ImageOutputs) -> None:
    """Write outputs as .npz, whole or not at all."""
    header = {"format": _FORMAT, "names": list(outputs.names), "classes": outputs.classes}
    arrays: dict[str, Any] = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "labels": outputs.labels,
        "probabilities": outputs.probabilities,
        "embeddings": outputs.embeddings,
        "folds": outputs.folds,
    }
    with new_file(path) as file:
        np.savez(file, **{name: each for name, each in arrays.items() if each is not None})


def read_image_outputs(path: str | Path) -> ImageOutputs:
    """Return the outputs in a file. Raises DataError if there is none, or if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}, not {_FORMAT!r}")
            outputs = ImageOutputs(
                header["names"],
                tuple(header["classes"]),
                arrays["labels"],
                arrays["probabilities"],
                *(arrays.get(name) for name in ("embeddings", "folds")),
            )
        _check(outputs)
        return outputs
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    # zipfile raises RuntimeError for flags and versions that it does not know.
    except (
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{path} is no file of image outputs, or is damaged: {error}") from None


def _check(outputs: ImageOutputs) -> None:
    """Raise ValueError if arrays contradict each other."""
    count, classes = len(outputs.names), len(outputs.classes)
    texts = [*outputs.names, *outputs.classes]
    if not classes or not all(isinstance(each, str) for each in texts):
        raise ValueError("its names are no texts")
    labels, probabilities = outputs.labels, outputs.probabilities
    if labels.dtype == np.int64 and labels.shape == (count,):
        is_label = (labels >= 0) & (labels < classes)
    elif labels.dtype == np.float32 and labels.shape == (count, classes):
        is_label = (labels == 0) | (labels == 1)
    else:
        raise ValueError(f"its labels are {labels.dtype} {labels.shape}")
    if not is_label.all():
        raise ValueError("a label is no class's")
    if probabilities.dtype != np.float32 or probabilities.shape != (count, classes):
        raise ValueError(f"its probabilities are {probabilities.dtype} {probabilities.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("a probability is not between 0 and 1")
    embeddings, folds = outputs.embeddings, outputs.folds
    if embeddings is not None and (
        embeddings.dtype not in (np.float32, np.float16)
        or embeddings.ndim != 2
        or len(embeddings) != count
        or not np.isfinite(embeddings).all()
    ):
        raise ValueError(f"its embeddings are {embeddings.dtype} {embeddings.shape}, or not finite")
    if folds is not None and (folds.dtype != np.int64 or folds.shape != (count,)):
        raise ValueError(f"its folds are {folds.dtype} {folds.shape}")


def _check_finite(probabilities: np.ndarray, embeddings: np.ndarray, names: Sequence[str]) -> None:
    is_finite = np.isfinite(probabilities).all(1) & np.isfinite(embeddings).all(1)
    if not is_finite.all():
        first = printable(names[int(is_finite.argmin())]) or "an image"
        raise DivergedError(
            f"the network returns NaN or infinite values, first for {first}: it has diverged; "
            "choose an earlier --checkpoint"
        )
