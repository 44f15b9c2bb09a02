"""A network in numbers: its layers, parameters, multiply-adds, memory and time for one image."""

import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from library.models.blocks import list_blocks
from library.models.hub_layer import HubLayer

_REPETITIONS = 5
# Values that an operation only hands on, or that are there before the first image comes.
_NO_ACTIVATIONS = {"Const", "Placeholder", "Identity", "Reshape", "NoOp", "ReadVariableOp"}


@dataclass(frozen=True)
class LayerRow:
    """One part of a network, as a line of its table."""

    block: int
    name: str
    # Without the batch, as text; empty inside a TF-Hub module.
    output: str
    parameters: int
    is_trained: bool


@dataclass(frozen=True)
class Description:
    """What there is to know about a network before it is trained."""

    rows: tuple
    parameters: int
    trained_parameters: int
    multiply_adds: int
    # Of float32 values that the layers compute for one image: what training must remember.
    activation_bytes: int
    # (batch size, seconds for one image of it), here and now.
    seconds: tuple

    def lines(self):
        """Return the table and the sums as lines of text."""
        names = max(len(row.name) for row in self.rows)
        outputs = max(len(row.output) for row in self.rows)
        for row in self.rows:
            trained = "trained" if row.is_trained else "frozen"
            numbers = f"{row.output:>{outputs}}  {row.parameters:>12,}  {trained}"
            yield f"{row.block:>3}  {row.name:<{names}}  {numbers}"
        yield f"parameters: {self.parameters:,}, of which {self.trained_parameters:,} are trained"
        yield f"multiply-adds for an image: {self.multiply_adds:,}"
        yield (
            f"memory: {4 * self.parameters / 1e6:.1f} MB of parameters, and "
            f"{self.activation_bytes / 1e6:.1f} MB of activations for each image in training"
        )
        times = (f"{1000 * each:.2f} ms in batches of {size}" for size, each in self.seconds)
        yield f"time for an image here: {', '.join(times)}"


def describe_network(network, batch_sizes=(1, 32)):
    """Return the Description of a network, after running it on noise to see how long it takes."""
    blocks = list_blocks(network)
    rows = [_row(number, part) for number, block in enumerate(blocks, 1) for part in block]
    multiply_adds, activation_bytes = _count_operations(network)
    return Description(
        rows=tuple(rows),
        parameters=_size(network.weights),
        trained_parameters=_size(network.trainable_weights),
        multiply_adds=multiply_adds,
        activation_bytes=activation_bytes,
        seconds=tuple((size, _seconds(network, size)) for size in batch_sizes),
    )


def _row(number, part):
    is_module = isinstance(part.layer, HubLayer)
    shape = "" if is_module else " x ".join(map(str, part.layer.output.shape[1:]))
    return LayerRow(number, part.name, shape, _size(part.variables.values()), part.is_trainable)


def _size(variables):
    return sum(int(np.prod(each.shape)) for each in variables)


def _count_operations(network):
    """Give (multiply-adds, bytes of activations) for one image, from the network's whole graph."""
    image = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32)
    function = tf.function(lambda pixels: network(pixels, training=False))
    # With all functions inlined, those of TF-Hub modules too.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(image))
    operations = frozen.graph.get_operations()
    values = sum(_values(each.outputs) for each in operations if each.type not in _NO_ACTIVATIONS)
    return sum(map(_multiply_adds, operations)), 4 * values


def _values(tensors):
    shapes = [each.shape for each in tensors if each.dtype.is_floating]
    return sum(each.num_elements() or 0 for each in shapes)


def _multiply_adds(operation):
    """Return the multiply-adds of a convolution or matrix product; of all else, 0."""
    if operation.type not in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2"):
        return 0
    outputs = operation.outputs[0].shape.num_elements() or 0
    factors = operation.inputs[1].shape
    if operation.type == "Conv2D":
        return outputs * int(np.prod(factors[:3]))
    if operation.type == "DepthwiseConv2dNative":
        return outputs * int(np.prod(factors[:2]))
    is_transposed = operation.get_attr("transpose_b" if operation.type == "MatMul" else "adj_y")
    return outputs * int(factors[-1 if is_transposed else -2])


def _seconds(network, batch_size):
    """Return the seconds that one image takes in a batch, the median of a few."""
    run = tf.function(lambda pixels: network(pixels, training=False))
    pixels = tf.random.uniform([batch_size, *network.input_shape[1:]], 0, 255)
    run(pixels)
    taken = []
    for _ in range(_REPETITIONS):
        before = time.perf_counter()
        keras.ops.convert_to_numpy(run(pixels))
        taken.append(time.perf_counter() - before)
    return float(np.median(taken)) / batch_size
