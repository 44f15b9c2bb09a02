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
_MIN_WIDTH_PIXELS, _MAX_WIDTH_PIXELS = 40, 360


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
        rows: The layers.
        parameters: Number of parameters.
        trained_parameters: Number of those that training changes.
        multiply_adds: For one image.
        activation_bytes: Size of the float32 values that are computed for one image; training
            keeps them in memory.
        seconds: (batch size, seconds per image in such batches) on this machine.
    """

    rows: tuple[LayerRow, ...]
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
    return NetworkSummary(
        rows=tuple(_row(number, layer) for number, block in blocks for layer in block),
        parameters=_size(network.weights),
        trained_parameters=_size(network.trainable_weights),
        multiply_adds=multiply_adds,
        activation_bytes=activation_bytes,
        seconds=tuple((size, _time_per_image(network, size)) for size in batch_sizes),
    )


def draw_network(summary: NetworkSummary, title: str) -> str:
    """Return an SVG with a box per block, as wide as its parameters on a logarithmic scale."""
    blocks: dict[int, list[LayerRow]] = {}
    for row in summary.rows:
        blocks.setdefault(row.block, []).append(row)
    sizes = {number: sum(row.parameters for row in rows) for number, rows in blocks.items()}
    scale = (_MAX_WIDTH_PIXELS - _MIN_WIDTH_PIXELS) / log10(max(sizes.values()) + 1)
    boxes = [
        {
            "name": _range(rows[0].name, rows[-1].name),
            "parameters": sizes[number],
            "output": rows[-1].output,
            "width": round(_MIN_WIDTH_PIXELS + scale * log10(sizes[number] + 1)),
            "is_trainable": any(row.is_trainable for row in rows),
        }
        for number, rows in blocks.items()
    ]
    return render("library.describing", "network.svg", title=title, boxes=boxes)


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} … {last.split('/')[-1]}"


def _row(block: int, layer: WeightedLayer) -> LayerRow:
    is_module = isinstance(layer.layer, HubLayer)
    shape = "" if is_module else " x ".join(map(str, layer.layer.output.shape[1:]))
    return LayerRow(block, layer.name, shape, _size(layer.variables.values()), layer.is_trainable)


def _size(variables: Any) -> int:
    return sum(int(np.prod(each.shape)) for each in variables)


def _count_operations(network: keras.Model) -> tuple[int, int]:
    """Return (multiply-adds, bytes of activations) for one image, from the network's graph."""
    image = tf.TensorSpec([1, *network.input_shape[1:]], tf.float32)
    function = tf.function(lambda pixels: network(pixels, training=False))
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


def _time_per_image(network: keras.Model, batch_size: int) -> float:
    """Return the median seconds per image of a few batches."""
    run = tf.function(lambda pixels: network(pixels, training=False))
    pixels = tf.random.uniform([batch_size, *network.input_shape[1:]], 0, 255)
    run(pixels)
    seconds = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        keras.ops.convert_to_numpy(run(pixels))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / batch_size
