"""What reading, copying, decoding and augmenting an image cost: pipelines that end earlier."""

import itertools
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from library.describing.pipeline_benchmark import Cost, measure_cost, stored_batches
from library.inputs.batching import make_batches, prefetch
from library.inputs.examples import ExampleSource, ShardSource

READ, COPY, DECODE, AUGMENT = "read", "copy", "decode", "augment"
INPUT_STAGES = (READ, DECODE, AUGMENT, COPY)
# Records whose size is looked up.
_RECORDS = 32


def measure_input_costs(training: Any, seconds: float) -> dict[str, Cost]:
    """Measure the stages of the inputs, each as the difference of two pipelines.

    Args:
        training: The TrainingPipeline of project/inputs.py.
        seconds: Time for each pipeline.

    Returns:
        Per image, by stage. read: get the stored images in the order of the epoch. copy: put pixels
        that are ready into batches, and these onto the device. decode: the rest of what makes
        images of the network's size. augment: the rest of all; absent if images are not augmented.
    """
    pipelines = {
        READ: stored_batches(training),
        COPY: _blank_batches(training),
        DECODE: training.without_augmentations().batches(0),
    }
    if training.is_augmented:
        pipelines[AUGMENT] = training.step_batches(0)
    sums = [Cost(0.0, 0.0), *(measure_cost(each, seconds) for each in pipelines.values())]
    differences = (
        # Noise can make a pipeline look cheaper than the part of it that was measured before.
        Cost(
            max(0.0, whole.seconds - part.seconds),
            max(0.0, whole.processor_seconds - part.processor_seconds),
        )
        for part, whole in pairwise(sums)
    )
    return dict(zip(pipelines, differences, strict=True))


def _blank_batches(training: Any) -> tf.data.Dataset:
    """Return batches of black images, for which the stored ones are read all the same."""
    spec = training.step_batches(0).element_spec[0]
    blank = tf.zeros(spec.shape[1:], tf.uint8)

    def prepare(position: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([training.source.stored_bytes(key)]):
            return tf.identity(blank)

    return prefetch(make_batches(training, training.keys(0), prepare), training.options)


def measure_augmentations(
    training: Any, without: Mapping[str, Any], seconds: float
) -> dict[str, float]:
    """Return the share of each augmentation in the time of the whole input pipeline.

    Args:
        training: The TrainingPipeline.
        without: By name of an augmentation, the same pipeline without it.
        seconds: Time for each pipeline.
    """
    whole = measure_cost(training.step_batches(0), seconds).seconds
    rest = {name: measure_cost(each.step_batches(0), seconds) for name, each in without.items()}
    return {name: max(0.0, 1 - each.seconds / whole) for name, each in rest.items()}


def mean_stored_shape(source: ExampleSource) -> tuple[int, int] | None:
    """Return the mean (height, width) of some converted images; None if there are none."""
    if not isinstance(source, ShardSource):
        return None
    keys = itertools.islice(source.keys(), _RECORDS)
    shapes = [[int(each) for each in source.parse(key, "height", "width")[:2]] for key in keys]
    height, width = np.mean(shapes, axis=0).round().astype(int)
    return int(height), int(width)
