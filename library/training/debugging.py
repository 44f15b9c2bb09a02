"""Is it the code or the data? One batch, learned by heart, with every number on the way checked.

A network that can't learn one batch learns nothing: the quickest test that there is of labels,
loss, gradients and learning rate together.
"""

import contextlib
import re

import tensorflow as tf

from library.errors import DivergedError, UserError
from library.messages import counted


class OneBatch:
    """The first batch of the training inputs, in the place of both splits; nothing is shuffled."""

    batches_per_epoch = 1

    def __init__(self, training):
        self.source = training.source
        self.batch_size = training.batch_size
        self.examples = min(training.batch_size, training.examples)
        # Kept: made once, it is the same in every epoch.
        self._batch = training.batches(0).take(1).cache()

    def batches(self, epoch=0, start_batch=0):
        """Return the batch, whichever epoch it is; (images, labels) as the training inputs do."""
        return self._batch.skip(start_batch)


@contextlib.contextmanager
def numeric_checks(is_on=True):
    """Within the block, each operation that gives NaN or infinity ends the run.

    Raises DivergedError, which names the operation by the layers around it.
    """
    if not is_on:
        yield
        return
    tf.debugging.enable_check_numerics()
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"Tensor had (.+?) values", error.message)
        if not found:
            raise
        name = re.search(r"\{\{node (.+?)(?:/CheckNumericsV2\S*)?\}\}", error.message)
        name = name or re.search(r'op "(\w+)"', error.message)
        where = name[1] if name else "an operation"
        raise DivergedError(f"debug: {where} gave {found[1]}") from error
    finally:
        tf.debugging.disable_check_numerics()


def check_overfit(validation, images):
    """Return one line that says that a batch was learned. Raises UserError where it was not.

    `validation` are the measures of the best snapshot, `images` says how many the batch had.
    """
    batch = f"one batch of {counted(images, 'image')}"
    measured = f"accuracy {validation['accuracy']:.4f}, loss {validation['loss']:.4f}"
    if validation["accuracy"] < 1:
        raise UserError(
            f"debug: {batch} was not learned ({measured}): look at a batch "
            "(preview), at the labels, the learning rate and the network"
        )
    return f"debug: {batch} was learned: {measured}"
