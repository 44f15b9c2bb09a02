"""`--dry_run`: one batch through the network. `--debug`: overfit one batch, with numeric checks on.

A network that can't overfit one batch learns nothing, so this is the quickest test of labels, loss,
gradients and learning rate together.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from library.errors import DivergedError, UserError
from library.messages import counted
from library.training.parts import Parts, RunInputs


def dry_run(parts: Parts, inputs: RunInputs) -> str:
    """Run one batch of each split through the network. Return a message with the shapes."""
    shapes = []
    splits = {"training": inputs.training.batches(0), "validation": inputs.validation.batches()}
    for name, batches in splits.items():
        images, labels = next(iter(batches))
        scores = parts.network(tf.cast(images, tf.float32), training=False)
        parts.objective.metrics(labels, scores)
        shapes.append(f"{name} images {tuple(images.shape)} → scores {tuple(scores.shape)}")
    return f"Dry run, nothing written: {', '.join(shapes)}"


class OneBatch:
    """The first batch of the training inputs, in the place of both splits; nothing is shuffled."""

    batches_per_epoch = 1
    order = None

    def __init__(self, training: Any) -> None:
        self.source = training.source
        self.batch_size = training.batch_size
        self.examples = min(training.batch_size, training.examples)
        # Cached, so that it is the same in every epoch.
        self._batch = training.batches(0).take(1).cache()

    def batches(self, epoch: int = 0, start_batch: int = 0) -> tf.data.Dataset:
        """Return the batch, (images, labels), as the data set of any epoch."""
        return self._batch.skip(start_batch)

    preview_batches = batches


@contextlib.contextmanager
def numeric_checks() -> Iterator[None]:
    """Check the result of each operation within the block.

    Raises:
        DivergedError: An operation returned NaN or infinity; it is named by the layers around it.
    """
    tf.debugging.enable_check_numerics()
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"Tensor had (.+?) values", error.message)
        if not found:
            raise
        name = re.search(r"\{\{node (.+?)(?:/CheckNumericsV2\S*)?\}\}", error.message)
        name = name or re.search(r'op "(\w+)"', error.message)
        operation = name[1] if name else "an operation"
        raise DivergedError(f"debug: {operation} returned {found[1]}") from error
    finally:
        tf.debugging.disable_check_numerics()


def check_overfit(validation: Mapping[str, float], images: int) -> str:
    """Return a message that one batch was learned, or raise UserError if it was not.

    Args:
        validation: Metrics of the best snapshot.
        images: Number of images in the batch.
    """
    batch = f"one batch of {counted(images, 'image')}"
    metrics = f"accuracy {validation['accuracy']:.4f}, loss {validation['loss']:.4f}"
    if validation["accuracy"] < 1:
        raise UserError(
            f"debug: {batch} was not learned ({metrics}): check a batch (python run.py preview), "
            "the labels, the learning rate and the network"
        )
    return f"debug: {batch} was learned: {metrics}"
