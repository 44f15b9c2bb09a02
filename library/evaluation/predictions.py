"""A network's scores for each image of a split, in the split's order."""

import itertools
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from library.evaluation.confusion import Rows, row_chunks
from library.files import temporary_file_error
from library.logging import progress_bar
from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities

# Larger arrays of scores are kept in a temporary file: those of many classes would need more
# memory than everything else.
_MAX_SCORE_BYTES = 128 << 20


class StoredScores:
    """An array in a temporary file, float32 (n, classes). Indexing reads a copy of some rows."""

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        """Write arrays (some, classes), one after another. Raises UserError if the disk is full."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        rows = 0
        try:
            for part in parts:
                self._file.write(np.ascontiguousarray(part, np.float32).data)
                rows += len(part)
            self._file.flush()
        except OSError as error:
            raise temporary_file_error(error) from None
        self.shape: tuple[int, ...] = (rows, part.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        # Pages that stay mapped would count as memory of this process.
        return np.array(np.memmap(self._file, np.float32, "r", shape=self.shape)[rows])


@dataclass(frozen=True)
class Predictions:
    """Scores, labels and names of n images.

    Attributes:
        scores: Logits, float32 (n, classes); of many classes to be read in parts (`row_chunks`).
        labels: int64 (n,), or multi-hot bool (n, classes) if multi-label.
        names: File names as converted.
        multi_label: Whether an image may have several classes, or none.
    """

    scores: Rows
    labels: np.ndarray
    names: tuple[str, ...]
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def classes(self) -> np.ndarray:
        """The most likely class of each image: int64 (n,)."""
        found = [self.scores[rows].argmax(1) for rows in row_chunks(self.scores)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct; if multi-label, all of its classes: bool (n,)."""
        if not self.multi_label:
            return self.classes == self.labels
        parts = [
            ((self.scores[rows] > 0) == (self.labels[rows] > 0.5)).all(1)
            for rows in row_chunks(self.scores)
        ]
        return np.concatenate([np.zeros(0, bool), *parts])

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
    # An array of the right shape and type, even if there are no batches.
    empty = np.zeros((0, network.output_shape[-1]), np.float32)
    labels = [empty.astype(bool) if multi_label else np.zeros(0, np.int64)]
    names: list[str] = []

    def score_batches() -> Iterator[np.ndarray]:
        yield empty
        for images, some_labels, some_names in itertools.islice(batches, max_steps):
            labels.append(np.asarray(some_labels, labels[0].dtype))
            names.extend(
                each.decode("utf-8", "replace") for each in np.asarray(some_names).tolist()
            )
            yield score(images)

    scores = gather_scores(score_batches())
    return Predictions(scores, np.concatenate(labels), tuple(names), multi_label)


def late_bar(items: Iterable, name: str, unit: str, count: int) -> Iterable:
    """Return items behind a progress bar that appears after two seconds."""
    return progress_bar(count, name, iterable=items, leave=False, delay=2, unit=unit)


def gather_scores(parts: Iterator[np.ndarray]) -> Rows:
    """Return the concatenation of arrays (some, classes), in memory if it is small."""
    gathered: list[np.ndarray] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += part.nbytes
        if size > _MAX_SCORE_BYTES:
            return StoredScores(itertools.chain(gathered, parts))
    return np.concatenate(gathered)
