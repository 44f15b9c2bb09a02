"""What every layer of a network makes of one picture, as pictures."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from library.figures.kernels import kernel_grid
from library.messages import counted

# So many maps of a layer are drawn, and each of them so large at least, or at most.
MOST_MAPS = 64
_LEAST_EDGE, _MOST_EDGE = 24, 96


@dataclass(frozen=True)
class LayerMaps:
    """A layer's name, the shape of what it gives (without the batch), and a drawing of it."""

    name: str
    shape: tuple
    drawing: Image.Image
    # Of all values: the share that is exactly 0, as a rectifier leaves it.
    zeros: float

    @property
    def words(self):
        """Say what there is, and how much of it is drawn."""
        if len(self.shape) != 3:
            return f"{' x '.join(map(str, self.shape))} values, {self.zeros:.0%} of them 0"
        height, width, count = self.shape
        drawn = f", the first {MOST_MAPS} drawn" if count > MOST_MAPS else ""
        maps = f"{counted(count, 'map')} of {height} x {width}"
        return f"{maps}{drawn}, {self.zeros:.0%} of the values 0"


def draw_layers(opened, picture):
    """Yield the LayerMaps of an FlatNetwork for one picture, pixels (height, width, channels).

    All layers in the order in which they run, but those that hand their input on (dropout).
    """
    layers = [each for each in opened.layers if not isinstance(each.layer, keras.layers.Dropout)]
    pixels = tf.cast(picture, tf.float32)[tf.newaxis]
    *given, _ = opened.make_model(*layers)(pixels, training=False)
    for each, values in zip(layers, given, strict=True):
        values = tf.cast(values, tf.float32).numpy()[0]
        zeros = float((values == 0).mean())
        yield LayerMaps(each.name, values.shape, draw_values(values), zeros)


def draw_values(values):
    """Return a drawing of (height, width, maps), or of values without places, as one map.

    Each map is scaled to its own range: dark is its lowest value, light its highest.
    """
    maps = values[..., :MOST_MAPS] if values.ndim == 3 else _as_one_map(values)
    height, width = maps.shape[:2]
    grid = kernel_grid(_resized(maps)[:, :, np.newaxis])[..., 0]
    drawing = Image.fromarray((255 * grid).round().astype(np.uint8))
    times = max(1, -(-_LEAST_EDGE // max(height, width)))
    size = (drawing.width * times, drawing.height * times)
    return drawing.resize(size, Image.Resampling.NEAREST)


def _as_one_map(values):
    """Return values of any other rank as (height, width, 1), about twice as wide as high."""
    flat = values.reshape(-1)
    width = max(1, int(np.ceil(np.sqrt(2 * len(flat)))))
    missing = -len(flat) % width
    return np.pad(flat, (0, missing), constant_values=flat.min()).reshape(-1, width, 1)


def _resized(maps):
    longest = max(maps.shape[:2])
    if longest <= _MOST_EDGE:
        return maps
    size = [max(1, round(each * _MOST_EDGE / longest)) for each in maps.shape[:2]]
    return tf.image.resize(maps, size, "area").numpy()
