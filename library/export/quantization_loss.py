"""Find the layers where an int8 LiteRT model loses most of what the float32 model computes."""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import tensorflow as tf


def describe_largest_losses(
    converter: Any, images: Callable[[], Iterable[list[np.ndarray]]], layer_names: Collection[str]
) -> str:
    """Return the three layers that lose most, in words for an error message.

    Args:
        converter: A TFLiteConverter that is set up for int8.
        images: Returns the inputs to try, one image each.
        layer_names: The names of the network's layers.
    """
    lite = tf.lite.experimental
    options = lite.QuantizationDebugOptions(layer_direct_compare_metrics={"loss": find_loss})
    debugger = lite.QuantizationDebugger(
        converter=converter, debug_dataset=images, debug_options=options
    )
    debugger.run()
    losses: dict[str, float] = {}
    for activation, statistics in debugger.layer_statistics.items():
        layer = _layer_of(activation, layer_names)
        losses[layer] = max(losses.get(layer, 0.0), statistics["loss"])
    worst = sorted(losses.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} ({loss:.1%})" for name, loss in worst)
    return f"the layers that lose most of the variance of their activations: {shares}"


def find_loss(floats: np.ndarray, integers: np.ndarray, scale: float, zero_point: int) -> float:
    """Return the share of an activation's variance that its integers lose.

    It is the mean over the channels of min(1, squared error / variance), over all positions; of a
    vector, which has one position, all channels count as one.

    Args:
        floats: The activation, shape (1, …, channels).
        integers: The same, quantized.
        scale: The value of a step of the integers.
        zero_point: The integer that stands for 0.
    """
    channels = floats.shape[-1] if floats.size > floats.shape[-1] else 1
    wanted = floats.astype(np.float64).reshape(-1, channels)
    error = (integers.astype(np.float64).reshape(wanted.shape) - zero_point) * scale - wanted
    variance = wanted.var(0)
    varying = variance > 1e-9 * np.square(wanted).mean(0)
    shares = np.square(error).mean(0)[varying] / variance[varying]
    return float(np.minimum(1, shares).mean()) if varying.any() else 0.0


def _layer_of(activation: str, layer_names: Collection[str]) -> str:
    """Return the layer whose name is in that of an activation, such as a/layer_1/Relu;a/b:17."""
    for part in reversed(re.split("[/;:]", activation)):
        # TensorFlow appends numbers to the names of a network that is called again.
        for name in (re.sub(r"(_\d+|\d+)$", "", part), part):
            if name in layer_names:
                return name
    return "probabilities"
