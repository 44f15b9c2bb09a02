import keras
import numpy as np

from library.figures.kernels import first_kernels, kernel_grid


def test_kernels_are_laid_out_each_in_its_own_range():
    kernels = np.zeros((2, 3, 1, 5), np.float32)
    kernels[0, 0, 0] = [1, 2, 3, 4, 5]
    grid = kernel_grid(kernels)
    assert grid.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
    corners = [grid[y, x, 0] for y in (0, 3) for x in (0, 4, 8)]
    assert corners == [1, 1, 1, 1, 1, 0]
    assert grid.sum() == 5
    assert kernel_grid(np.ones((2, 2, 16, 4), np.float32)).shape == (5, 5, 1)


def test_the_kernels_that_look_at_the_image_come_first_frozen_ones_too():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, name="separate")(
        keras.layers.Conv2D(4, 3, name="look")(pixels)
    )
    base = keras.Model(pixels, keras.layers.Conv2D(2, 1)(x), name="base")
    base.trainable = False
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(base(pixels))))
    assert np.array_equal(first_kernels(network), base.get_layer("look").get_weights()[0])
    # Behind another layer, and then the first there is.
    inner = keras.Input((8, 8, 16))
    deep = keras.Model(inner, keras.layers.Conv2D(2, 3)(keras.layers.Conv2D(4, 1)(inner)))
    assert first_kernels(deep).shape == (1, 1, 16, 4)


def test_a_network_without_kernels_has_none_to_show():
    pixels = keras.Input((4,))
    assert first_kernels(keras.Model(pixels, keras.layers.Dense(2)(pixels))) is None
