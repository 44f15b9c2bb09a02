"""Drawings of every layer's output for one image."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from library.explaining.layer_graph import FlatNetwork
from library.figures.kernels import kernel_grid
from library.messages import counted

MAX_MAPS = 64
_MIN_EDGE_PIXELS, _MAX_EDGE_PIXELS = 24, 96


@dataclass(frozen=True)
class LayerOutput:
    """A layer's output for one image.

    Attributes:
        name: The layer's name.
        shape: Shape of the output, without the batch.
        drawing: The first maps, side by side.
        zeros: Share of the values that are exactly 0, as after a ReLU.
    """

    name: str
    shape: tuple[int, ...]
    drawing: Image.Image
    zeros: float

    @property
    def description(self) -> str:
        """The shape, how much of it is drawn, and the share of zeros."""
        zeros = f"{100 * self.zeros:.0f} % zeros"
        if len(self.shape) != 3:
            return f"{' x '.join(map(str, self.shape))} values, {zeros}"
        height, width, count = self.shape
        drawn = f", the first {MAX_MAPS} drawn" if count > MAX_MAPS else ""
        return f"{counted(count, 'map')} of {height} x {width}{drawn}, {zeros}"


def draw_layers(flat_network: FlatNetwork, pixels: np.ndarray) -> Iterator[LayerOutput]:
    """Yield each layer's output for one image, (height, width, channels), in running order.

    Dropout layers are skipped, because they only pass on their input.
    """
    layers = [
        each for each in flat_network.layers if not isinstance(each.layer, keras.layers.Dropout)
    ]
    batch = tf.cast(pixels, tf.float32)[tf.newaxis]
    *outputs, _ = flat_network.make_model(*layers)(batch, training=False)
    for layer, output in zip(layers, outputs, strict=True):
        values = tf.cast(output, tf.float32).numpy()[0]
        zeros = float((values == 0).mean())
        yield LayerOutput(layer.name, values.shape, draw_values(values), zeros)


def draw_values(values: np.ndarray) -> Image.Image:
    """Return a gray drawing of (height, width, maps), or of values of another rank as one map.

    Each map is scaled to its own range: its lowest value is black, its highest white.
    """
    maps = values[..., :MAX_MAPS] if values.ndim == 3 else _to_one_map(values)
    height, width = maps.shape[:2]
    grid = kernel_grid(_shrink(maps)[:, :, np.newaxis])[..., 0]
    drawing = Image.fromarray((255 * grid).round().astype(np.uint8))
    factor = max(1, -(-_MIN_EDGE_PIXELS // max(height, width)))
    size = (drawing.width * factor, drawing.height * factor)
    return drawing.resize(size, Image.Resampling.NEAREST)


def _to_one_map(values: np.ndarray) -> np.ndarray:
    """Return values of any rank as (height, width, 1), about twice as wide as high."""
    flat = values.reshape(-1)
    width = max(1, int(np.ceil(np.sqrt(2 * len(flat)))))
    missing = -len(flat) % width
    return np.pad(flat, (0, missing), constant_values=flat.min()).reshape(-1, width, 1)


def _shrink(maps: np.ndarray) -> np.ndarray:
    longest = max(maps.shape[:2])
    if longest <= _MAX_EDGE_PIXELS:
        return maps
    size = [max(1, round(each * _MAX_EDGE_PIXELS / longest)) for each in maps.shape[:2]]
    return tf.image.resize(maps, size, "area").numpy()
