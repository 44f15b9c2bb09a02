"""A network in numbers and as a diagram.

Beside what `keras.Model.summary` prints: blocks, multiply-adds, memory, and the time for an image.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from library.figures.html import render
from library.models.blocks import WeightedLayer, list_blocks
from library.models.hub_layer import HubLayer

_REPETITIONS = 5
# Ops whose values are passed on, or present before the first image.
_NO_ACTIVATIONS = {"Const", "Placeholder", "Identity", "Reshape", "NoOp", "ReadVariableOp"}
_BAR_PIXELS = 300
# Longer names would run into the bars.
_MAX_NAME = 46


@dataclass(frozen=True)
class LayerRow:
    """A line of the table: a layer.

    Attributes:
        block: Number of its block, from 1.
        name: Path in the network.
        output: Shape of the output without the batch, as text; empty inside a TF-Hub module.
        parameters: Number of parameters.
        is_trainable: Whether training changes any of them.
    """

    block: int
    name: str
    output: str
    parameters: int
    is_trainable: bool


@dataclass(frozen=True)
class NetworkSummary:
    """What to know about a network before it is trained.

    Attributes:
        rows: The layers with weights.
        layers: All layers.
        parameters: Number of parameters.
        trained_parameters: Number of those that training changes.
        multiply_adds: For one image.
        activation_bytes: Size of the float32 values that are computed for one image; training
            keeps them in memory.
        seconds: (batch size, seconds per image in such batches) on this machine.
    """

    rows: tuple[LayerRow, ...]
    layers: tuple[LayerRow, ...]
    parameters: int
    trained_parameters: int
    multiply_adds: int
    activation_bytes: int
    seconds: tuple[tuple[int, float], ...]

    def lines(self) -> Iterator[str]:
        """Yield the table and the sums as lines of text."""
        names = max(len(row.name) for row in self.rows)
        outputs = max(len(row.output) for row in self.rows)
        for row in self.rows:
            trained = "trained" if row.is_trainable else "frozen"
            numbers = f"{row.output:>{outputs}}  {row.parameters:>12,}  {trained}"
            yield f"{row.block:>3}  {row.name:<{names}}  {numbers}"
        yield f"parameters: {self.parameters:,} ({self.trained_parameters:,} trained)"
        yield f"multiply-adds per image: {self.multiply_adds:,}"
        yield (
            f"memory: {4 * self.parameters / 1e6:.1f} MB of parameters, "
            f"{self.activation_bytes / 1e6:.1f} MB of activations per image in training"
        )
        times = (f"{1000 * each:.2f} ms in batches of {size}" for size, each in self.seconds)
        yield f"time per image on this machine: {', '.join(times)}"


def summarize_network(network: keras.Model, batch_sizes: Sequence[int] = (1, 32)) -> NetworkSummary:
    """Return the summary of a network, after timing it on noise in batches of these sizes."""
    blocks = enumerate(list_blocks(network), 1)
    multiply_adds, activation_bytes = _count_operations(network)
    rows = tuple(_row(number, layer) for number, block in blocks for layer in block)
    return NetworkSummary(
        rows=rows,
        layers=tuple(_all_layers(network, rows)),
        parameters=_size(network.weights),
        trained_parameters=_size(network.trainable_weights),
        multiply_adds=multiply_adds,
        activation_bytes=activation_bytes,
        seconds=tuple((size, time_per_image(network, size)) for size in batch_sizes),
    )


def draw_network(summary: NetworkSummary, title: str) -> str:
    """Return an SVG with every layer: parameters as a bar, output, whether it is trained."""
    digits = len(str(max(row.parameters for row in summary.layers)))
    # A single parameter has a bar, too: the scale begins below 1, at 10^0 / 2.
    pixels_per_digit = _BAR_PIXELS / (digits + log10(2))
    rows = [
        {
            "name": _shortened(row.name),
            "parameters": row.parameters,
            "output": row.output,
            "width": round(pixels_per_digit * log10(2 * max(row.parameters, 0.5))),
            "is_trainable": row.is_trainable,
            "blocks_above": row.block - 1,
        }
        for row in summary.layers
    ]
    ticks = [
        (round(pixels_per_digit * (digit + log10(2))), f"{10**digit:,}")
        for digit in range(0, digits + 1, 1 if digits < 5 else 2)
    ]
    values = {"title": title, "rows": rows, "ticks": ticks, "bar_width": _BAR_PIXELS}
    return render("library.describing", "network.svg", **values)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"


def _all_layers(model: keras.Model, weighted: Sequence[LayerRow], prefix: str = "") -> Iterator:
    """Yield the rows of the layers with weights, and between them one for each other layer."""
    block = weighted[0].block if weighted else 1
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        inside = [row for row in weighted if f"{row.name}/".startswith(f"{path}/")]
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer, inside, f"{path}/")
        elif inside:
            yield from inside
        elif not isinstance(layer, keras.layers.InputLayer):
            yield LayerRow(block, path, _output_shape(layer), 0, False)
        block = inside[-1].block if inside else block


def _output_shape(layer: keras.layers.Layer) -> str:
    """Return the shape of a layer's output without the batch; nothing if it has no single one."""
    try:
        return " x ".join(map(str, layer.output.shape[1:]))
    except (AttributeError, ValueError):
        return ""


def _row(block: int, layer: WeightedLayer) -> LayerRow:
    shape = "" if isinstance(layer.layer, HubLayer) else _output_shape(layer.layer)
    return LayerRow(block, layer.name, shape, _size(layer.variables.values()), layer.is_trainable)


def _size(variables: Any) -> int:
    return sum(int(np.prod(each.shape)) for each in variables)


def _count_operations(network: keras.Model) -> tuple[int, int]:
    """Return (multiply-adds, bytes of activations) for one image, from the network's graph."""
    image = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32)
    function = tf.function(lambda pixels: network(pixels, training=False), autograph=False)
    # All functions are inlined, also those of TF-Hub modules.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(image))
    operations = frozen.graph.get_operations()
    outputs = [o for each in operations if each.type not in _NO_ACTIVATIONS for o in each.outputs]
    values = sum(each.shape.num_elements() or 0 for each in outputs if each.dtype.is_floating)
    return sum(map(_multiply_adds, operations)), 4 * values


def _multiply_adds(operation: Any) -> int:
    """Return the multiply-adds of a convolution or matrix product, 0 for other ops."""
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


def time_per_image(network: keras.Model, batch_size: int) -> float:
    """Return the median seconds per image of a few batches of noise."""
    run = tf.function(lambda pixels: network(pixels, training=False), autograph=False)
    pixels = tf.random.uniform([batch_size, *network.input_shape[1:]], 0, 255)
    run(pixels)
    seconds = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        keras.ops.convert_to_numpy(run(pixels))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / batch_size
