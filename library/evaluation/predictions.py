"""A network's scores for each image of a split, in the split's order."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from library.logging import progress_bar
from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities


@dataclass(frozen=True)
class Predictions:
    """Scores, labels and names of n images.

    Attributes:
        scores: Logits, float32 (n, classes).
        labels: int64 (n,), or multi-hot float32 (n, classes) if multi-label.
        names: File names as converted.
        multi_label: Whether an image may have several classes, or none.
    """

    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> np.ndarray:
        """The most likely class of each image: int64 (n,)."""
        return self.scores.argmax(1)

    def probabilities(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return the probabilities of some images, float32 (some, classes)."""
        return np.asarray(to_probabilities(self.scores[rows], multi_label=self.multi_label))


def predict_batches(
    network: keras.Model, batches: Iterable, max_steps: int | None = None, *, xla: bool = False
) -> Predictions:
    """Return the Predictions of a network for batches.

    Args:
        network: A model from pixels in [0, 255] to logits.
        batches: (images, labels, names) each: pixels (batch, height, width, channels), and file
            names as a string tensor (batch,).
        max_steps: Use at most this many batches; None: all.
        xla: Whether XLA compiles the network.
    """
    score = Inference(network, xla=xla)
    multi_label = is_multi_label(network)
    # Arrays of the right shape and type, even if there are no batches.
    scores = [np.zeros((0, network.output_shape[-1]), np.float32)]
    labels = [scores[0] if multi_label else np.zeros(0, np.int64)]
    names: list[str] = []
    for images, some_labels, some_names in itertools.islice(batches, max_steps):
        scores.append(score(images))
        labels.append(np.asarray(some_labels))
        names += [each.decode("utf-8", "replace") for each in np.asarray(some_names).tolist()]
    return Predictions(_join(scores), _join(labels), tuple(names), multi_label)


def late_bar(items: Iterable, name: str, unit: str, count: int) -> Iterable:
    """Return items behind a progress bar that appears after two seconds."""
    return progress_bar(count, name, iterable=items, leave=False, delay=2, unit=unit)


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the concatenation of arrays, freeing each as soon as it is copied."""
    joined = np.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[-1].dtype)
    end = len(joined)
    while arrays:
        last = arrays.pop()
        joined[end - len(last) : end] = last
        end -= len(last)
    return joined
