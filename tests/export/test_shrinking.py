"""The graph's shrinking against the converter's."""

import numpy as np
import pytest
import tensorflow as tf

from library.dataset.pixels import fitted_size, shrink
from library.export import shrinking
from tests.export.test_bytes_to_pixels import smooth

pytestmark = pytest.mark.slow

graph = tf.function(
    shrinking.shrink,
    input_signature=[tf.TensorSpec([None, None, None], tf.uint8), tf.TensorSpec([2], tf.int32)],
    autograph=False,
)


def noisy(height, width):
    """Return an image in which every pixel matters."""
    noise = np.random.default_rng(height).integers(-30, 31, (height, width, 3))
    return (smooth(height, width) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "max_edge"),
    [
        *[(150, 200, 160), (161, 120, 160), (300, 90, 160), (1, 200, 100), (200, 3, 100)],
        # So large that whole pixels are averaged first: four of them, nine, or parts of others.
        *[(400, 300, 160), (480, 360, 96), (301, 403, 100), (20, 900, 64)],
    ],
)
def test_nearly_all_pixels_are_the_converters(height, width, max_edge):
    image = noisy(height, width)
    size = fitted_size(width, height, max_edge)
    found = graph(image, size[::-1]).numpy()
    difference = np.abs(found.astype(int) - shrink(image, size))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.995


def test_what_has_the_size_stays_as_it_is():
    image = noisy(30, 40)
    assert np.array_equal(graph(image, (30, 40)), image)
