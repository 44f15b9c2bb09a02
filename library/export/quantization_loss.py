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
    # Of each activation of each image: the moments of its channels.
    moments: list[np.ndarray] = []

    def record(floats: np.ndarray, integers: np.ndarray, scale: float, zero_point: int) -> float:
        wanted = floats.astype(np.float64).reshape(-1, floats.shape[-1])
        error = (integers.astype(np.float64).reshape(wanted.shape) - zero_point) * scale - wanted
        moments.append(np.stack([each.mean(0) for each in (wanted, wanted**2, error**2)]))
        return 0.0

    lite = tf.lite.experimental
    options = lite.QuantizationDebugOptions(layer_direct_compare_metrics={"moments": record})
    debugger = lite.QuantizationDebugger(
        converter=converter, debug_dataset=images, debug_options=options
    )
    debugger.run()
    losses: dict[str, float] = {}
    for number, activation in enumerate(debugger.layer_statistics):
        layer = _layer_of(activation, layer_names)
        # The activations of an image come in the same order each time.
        loss = find_loss(np.mean(moments[number :: len(debugger.layer_statistics)], axis=0))
        losses[layer] = max(losses.get(layer, 0.0), loss)
    worst = sorted(losses.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} ({loss:.1%})" for name, loss in worst)
    return f"the layers that lose most of the variance of their activations: {shares}"


def find_loss(moments: np.ndarray) -> float:
    """Return the share of an activation's variance that its integers lose.

    Args:
        moments: Shape (3, channels): the means over images and positions of the activation, of its
            square, and of the squared error of the integers.

    Returns:
        The mean over the channels of min(1, squared error / variance).
    """
    mean, square, error = moments
    variance = square - mean**2
    varying = variance > 1e-9 * square
    return float(np.minimum(1, error[varying] / variance[varying]).mean()) if varying.any() else 0.0


def _layer_of(activation: str, layer_names: Collection[str]) -> str:
    """Return the layer whose name is in that of an activation, such as a/layer_1/Relu;a/b:17."""
    for part in reversed(re.split("[/;:]", activation)):
        # TensorFlow appends numbers to the names of a network that is called again.
        for name in (re.sub(r"(_\d+|\d+)$", "", part), part):
            if name in layer_names:
                return name
    return "probabilities"
