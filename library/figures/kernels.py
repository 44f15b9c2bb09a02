"""The kernels of a network's first layer, laid out as a grid."""

import keras
import numpy as np


def first_kernels(network: keras.Model) -> np.ndarray | None:
    """Return the first kernels that see an image, float32 (height, width, in, out), or None.

    Trained or frozen. Kernels with 1 or 3 input channels, as an image has, come before others.
    """
    kernels = [each for each in network.variables if len(each.shape) == 4]
    on_images = [each for each in kernels if each.shape[2] in (1, 3)]
    for variable in on_images or kernels:
        return keras.ops.convert_to_numpy(variable).astype(np.float32)
    return None


def kernel_grid(kernels: np.ndarray) -> np.ndarray:
    """Lay kernels out side by side, each scaled to its own range, with a black line in between.

    Args:
        kernels: (height, width, in, out). Those with three inputs are shown in color, others as
            the mean over their inputs.

    Returns:
        One float32 image in [0, 1], shape (height, width, 1 or 3).
    """
    height, width, inputs, outputs = kernels.shape
    tiles = kernels if inputs in (1, 3) else kernels.mean(2, keepdims=True)
    low, high = tiles.min((0, 1, 2)), tiles.max((0, 1, 2))
    tiles = (tiles - low) / np.maximum(high - low, 1e-12)
    columns = int(np.ceil(np.sqrt(outputs)))
    rows = -(-outputs // columns)
    grid = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, tiles.shape[2]), "float32")
    for number in range(outputs):
        y, x = number // columns * (height + 1), number % columns * (width + 1)
        grid[y : y + height, x : x + width] = tiles[..., number]
    return grid
