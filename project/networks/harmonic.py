"""A small network for few images: fixed cosine filters first, then residual convolutions.

After Ulicny et al. 2019, "Harmonic Networks with Limited Training Samples" (arXiv 1905.00135).
"""

import keras
import numpy as np
from keras import layers

from project.networks.heads import add_scores


def harmonic(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    width: int,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build fixed filters, then blocks that each halve the image, until 3 pixels or fewer are left.

    The filters, their opposites and max-pooling leave 18 features per channel, of half the image's
    size. They need not be learned from few images, nor a gradient computed for the whole image.

    Args:
        image_shape: (height, width, channels).
        class_count: Number of classes.
        width: Filters of the first block; each later one has twice as many, up to 8 times.
        dropout_rate: Share of features to drop out before the last layer.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.
    """
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    kernel = cosine_filters(image_shape[2])
    stem = layers.Conv2D(
        kernel.shape[-1], 3, padding="same", use_bias=False, trainable=False, name="stem_cosines"
    )
    x = stem(x)
    # Constants as weights, so that a snapshot can be loaded without this module.
    stem.kernel.assign(kernel)
    if min(image_shape[:2]) > 3:
        x = layers.MaxPooling2D()(x)
    x = layers.BatchNormalization(momentum=0.9, name="stem_normalization")(layers.ReLU()(x))
    number = 0
    while min(x.shape[1:3]) > 3:
        filters, name = width * min(2**number, 8), f"block{number + 1}"
        x = layers.ReLU()(_convolution(x, filters, f"{name}_1", pools=True))
        y = layers.ReLU()(_convolution(x, filters, f"{name}_2"))
        x = layers.Add()([x, y])
        number += 1
    # Flatten instead of averaging, because the position of something distinguishes classes.
    x = layers.Dropout(dropout_rate)(layers.Flatten()(x))
    return keras.Model(pixels, add_scores(x, class_count, head), name="harmonic")


def cosine_filters(channels: int) -> np.ndarray:
    """Return the basis of the two-dimensional discrete cosine transform (DCT-II), and its opposite.

    Args:
        channels: Number of the image's channels, each of which has filters of its own.

    Returns:
        Kernel of a convolution, shape (3, 3, channels, 18 * channels).
    """
    size = np.arange(3)
    basis = np.cos(np.pi * (2 * size[:, np.newaxis] + 1) * size / 6)
    basis /= np.linalg.norm(basis, axis=0)
    filters = np.einsum("yi,xj->yxij", basis, basis).reshape(3, 3, 9)
    filters = np.concatenate([filters, -filters], axis=-1)
    kernel = np.einsum("yxf,cd->yxcdf", filters, np.eye(channels))
    return kernel.reshape(3, 3, channels, 18 * channels)


def _convolution(
    x: keras.KerasTensor, filters: int, name: str, *, pools: bool = False
) -> keras.KerasTensor:
    # No bias: the normalization that follows would cancel it.
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_convolution")(x)
    if pools:
        # Before the normalization, which then has a quarter of the work.
        x = layers.MaxPooling2D()(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
