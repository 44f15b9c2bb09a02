"""What training, evaluation and their neighbors expect of inputs; project/inputs.py provides them.

The attributes are read-only. Everything here is a frozen dataclass, so `dataclasses.replace` makes
a copy with other values.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Protocol

import tensorflow as tf

from library.inputs.decoding import ImageFormat
from library.inputs.examples import ExampleSource, PipelineOptions, SplitPart
from library.inputs.worker_slice import WorkerSlice


class TrainingBatches(Protocol):
    """What a training step sees, epoch by epoch: images or cached features, with their labels."""

    def batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return the batches of one epoch from `start_batch` on; elements are (inputs, labels)."""


class EvaluationBatches(Protocol):
    """What an evaluation step sees: every example once, in order."""

    @property
    def batch_size(self) -> int:
        """Largest number of examples in a batch, over all workers."""

    def batches(self) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
        """Return the batches, with several devices as a data set, of (inputs, labels)."""


class Inputs(Protocol):
    """What training and evaluation inputs share."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def source(self) -> ExampleSource:
        """Where the examples come from."""

    @property
    def image_format(self) -> ImageFormat:
        """Shape of the decoded images."""

    @property
    def batch_size(self) -> int:
        """Number of examples in a full batch, over all workers."""

    @property
    def worker_slice(self) -> WorkerSlice:
        """The part of each batch that this worker prepares."""

    @property
    def options(self) -> PipelineOptions:
        """How much is read, decoded and prefetched in parallel."""

    @property
    def examples(self) -> int:
        """Number of examples in an epoch."""

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch, the same for every worker."""


class TrainingInputs(Inputs, TrainingBatches, Protocol):
    """A training split: shuffled and augmented, in an order that is a function of (seed, epoch)."""

    @property
    def order(self) -> list:
        """What the order of an epoch depends on besides the file names, as JSON stores it."""

    def step_batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return the batches whose images `Parts.augment` changes; elements have a third part."""

    def preview_batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return batches to look at: those of `batches`, or others that are at hand."""

    def keys(self, epoch: int) -> tf.data.Dataset:
        """Return the keys of the source's examples in the order of an epoch."""

    def for_part(self, part: SplitPart) -> "TrainingInputs":
        """Return inputs of a part of the examples that don't depend on the other parts."""


class EvaluationInputs(Inputs, EvaluationBatches, Protocol):
    """A split as it is: every example once, in order, not augmented."""

    def named_batches(self) -> tf.data.Dataset:
        """Return the batches with file names; elements are (images, labels, names)."""


class SplitInputs(NamedTuple):
    """The inputs of a training run: images and labels, or cached features and labels."""

    training: TrainingBatches
    validation: EvaluationBatches
