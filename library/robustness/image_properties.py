"""Properties of a split's images that a network may depend on: size, light, sharpness, duplicates.

Size and aspect ratio are those of the stored image; the others are measured at the network's input
size, on what the network sees.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from library.dataset.duplicates import (
    SIGNATURE_BYTES,
    exact_hash,
    find_groups,
    perceptual_hash,
    signature,
)
from library.dataset.worker_pool import available_cores
from library.evaluation.predictions import late_bar
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import decode, read_shape
from library.inputs.interfaces import EvaluationInputs

OF_TRAINING = "like a training image"
OF_SPLIT = "like another image of the split"
UNIQUE = "like no other image"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class _Hashes(NamedTuple):
    exact: int
    perceptual: tuple[int, int]
    signature: bytes


def measure_properties(
    inputs: EvaluationInputs, count: int, training: EvaluationInputs | None = None
) -> dict[str, np.ndarray | list[str]]:
    """Return the properties of the first `count` images: name → a number or a word per image.

    Args:
        inputs: The split; not cached, because a cache does not hold the stored sizes.
        count: How many of its images, n.
        training: The training split, to find images in that are like one of it; None: only those
            of the split are compared.

    Raises:
        DataError: An image can't be read.
    """
    sizes = np.empty((count, 2))
    light = np.empty((count, 2))
    hashes = []
    for row, (pixels, size) in enumerate(_read(inputs, count, "image properties")):
        gray = _to_gray(pixels)
        sizes[row] = size
        # The variance of the Laplacian: Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548.
        light[row] = gray.mean(), cv2.Laplacian(gray, cv2.CV_32F).var()
        hashes.append(_hash(pixels, gray))
    if training is not None:
        for pixels, _ in _read(training, training.examples, "training images"):
            hashes.append(_hash(pixels, _to_gray(pixels)))
    height, width = sizes.T
    return {
        "shorter edge": sizes.min(1),
        "aspect ratio": width / height,
        "brightness": light[:, 0],
        "sharpness": light[:, 1],
        "duplicates": _describe_duplicates(hashes, count),
    }


def _describe_duplicates(hashes: list[_Hashes], count: int) -> list[str]:
    """Return whether each of the first `count` images is like another one."""
    exact = np.array([each.exact for each in hashes], np.uint64)
    perceptual = np.array([each.perceptual for each in hashes], np.uint64)
    signatures = np.frombuffer(b"".join(each.signature for each in hashes), np.int8)
    found = [UNIQUE] * count
    equal, alike = find_groups(exact, perceptual, signatures.reshape(-1, SIGNATURE_BYTES))
    for group in (*equal, *alike):
        own = group[group < count]
        word = OF_TRAINING if len(own) < len(group) else OF_SPLIT
        for row in own.tolist():
            if found[row] != OF_TRAINING:
                found[row] = word
    return found


def _hash(pixels: np.ndarray, gray: np.ndarray) -> _Hashes:
    # The bytes of a file are not at hand; equal pixels are as good.
    return _Hashes(exact_hash(pixels.tobytes()), perceptual_hash(gray), signature(gray))


def _to_gray(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 (height, width), of uint8 (height, width, 1 or 3)."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return np.rint(pixels @ _LUMA).astype(np.uint8)


def _read(
    inputs: EvaluationInputs, count: int, name: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (uint8 pixels at the network's size, stored height and width) of the first images."""
    source: Any = inputs.source

    def load(key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, height, width, _ = source.parse(key, "encoded", "height", "width")
        shape = read_shape(encoded, (height, width))
        return decode(encoded, shape, inputs.image_format), tf.stack([height, width])

    as_it_is = tf.autograph.experimental.do_not_convert(load)
    images = source.keys().take(count).map(as_it_is, available_cores()).prefetch(64)
    with explain_read_errors(inputs):
        yield from late_bar(images.as_numpy_iterator(), name, " images", count)
