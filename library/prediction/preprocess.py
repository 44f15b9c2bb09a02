"""Turn any image file into the pixels that the network sees in evaluation, and predict from them.

An image takes the same two steps as in evaluation: conversion to a JPEG (library/dataset), then
decoding to the network's size (library/inputs). Skipping the first would be faster, but the network
would see other pixels than those it was evaluated on.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice, zip_longest
from threading import Lock
from typing import Any, Self

import numpy as np
import tensorflow as tf

from library.dataset.images import (
    EncodedImage,
    ImageOptions,
    UnusableImageError,
    convert_image,
    decode_as_tensorflow,
    find_conformant,
)
from library.dataset.locations import MemoryLocation
from library.dataset.sources.base import LabeledFile
from library.dataset.worker_pool import available_cores
from library.errors import reason_of
from library.inputs.aspect_ratio import SQUEEZED
from library.inputs.decoding import REDUCTIONS, ImageFormat, decode, resize, resize_part
from library.prediction.predictor import Predictor
from library.saving.snapshots import Snapshot

# What convert_image does: (content, options) → (JPEG bytes, height, width).
ConvertImage = Callable[[bytes, ImageOptions], tuple[bytes, int, int]]

# Batches whose images are prepared ahead of the network.
_BATCHES_AHEAD = 2
# The largest sum of encoded images, read ahead from a compressed tar, that a batch has.
_BYTES_AHEAD = 128 << 20
# Files of more bytes are prepared one at a time, so that memory does not grow with the cores.
_LARGE_BYTES = 32 << 20
_large_file = Lock()
# Why an image has no prediction: argmax would name some class all the same.
NAN_SCORES = "gives NaN or infinite scores"


class ImagePreprocessor:
    """Prepares images for one network. Thread-safe.

    Args:
        image_format: The size and channels that the network takes.
        options: How images were converted for training; None: the defaults.
        convert: Converts one image, for example ImagePool.convert, which does so in a process.
    """

    def __init__(
        self,
        image_format: ImageFormat,
        options: ImageOptions | None = None,
        convert: ConvertImage = convert_image,
    ) -> None:
        self.image_format = image_format
        self._options = options or ImageOptions()
        self._convert = convert
        self._decode = self._trace_decode()
        # Converting a tuple for each image would take a third as long as resizing it.
        self._size = tf.constant(image_format.shape[:2])

    @classmethod
    def for_snapshot(cls, snapshot: Snapshot, convert: ConvertImage = convert_image) -> Self:
        """Return a preprocessor that prepares images as for the snapshot's training."""
        return cls(snapshot.image_format, snapshot.image_options, convert)

    def preprocess(self, content: bytes) -> np.ndarray:
        """Return uint8 pixels (height, width, channels) from the bytes of an image file.

        Raises:
            UnusableImageError: The text is a reason that follows the file's name.
            MemoryError: The image needs too much memory.
        """
        conformant = find_conformant(content, self._options)
        if conformant and self.image_format.fit == SQUEEZED:
            # In this process, as TensorFlow would, with the same libjpeg-turbo.
            pixels = self._decode_once(conformant)
            if pixels is not None:
                return pixels
        return self.decode(*self._convert(content, self._options))

    def _decode_once(self, conformant: EncodedImage) -> np.ndarray | None:
        """Return the pixels of `decode`, to the bit; None if only TensorFlow can decode the image.

        TensorFlow takes damaged data without a warning, and a check would read the data once more.

        Raises UnusableImageError.
        """
        height, width, channels = self.image_format.shape
        is_exact = conformant[1:] == (height, width)
        factor = min(conformant.height // height, conformant.width // width)
        reduction = max((each for each in REDUCTIONS if each <= factor), default=1)
        pixels = decode_as_tensorflow(conformant, channels, reduction, is_exact=is_exact)
        if pixels is None or is_exact:
            return pixels
        with tf.device("/CPU:0"):
            image = tf.constant(pixels)
            if any(each % reduction for each in conformant[1:]):
                extent = tf.constant(conformant[1:], tf.float64) / reduction
                return resize_part(image, None, extent, self._size).numpy()
            return resize(image, self._size).numpy()

    def decode(self, encoded: bytes, height: int, width: int) -> np.ndarray:
        """Return the pixels of an image that is converted already. Raises UnusableImageError."""
        try:
            return self._decode(tf.constant(encoded), tf.constant([height, width, 3])).numpy()
        except tf.errors.InvalidArgumentError:
            # A conformant JPEG is stored as it is, so damage within its data shows only here.
            raise UnusableImageError("is a damaged JPEG: its data cannot be decoded") from None

    def _trace_decode(self) -> Callable:
        @tf.function(
            input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([3], tf.int32)],
            autograph=False,
        )
        def traced(encoded: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
            # On the CPU, as in evaluation: a GPU rounds differently.
            with tf.device("/CPU:0"):
                return decode(encoded, shape, self.image_format)

        return traced.get_concrete_function()


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file, or the error that prevented it.

    Attributes:
        name: The file's name.
        probabilities: float32 (classes,); None after an error.
        error: The reason why there is no prediction, which follows the name.
        embedding: float32 (size,); empty unless the Predictor gives embeddings.
        unknown_score: Above 0 if the image is unknown; None unless the Predictor has a detector.
    """

    name: str
    probabilities: np.ndarray | None
    error: str | None = None
    embedding: np.ndarray | None = None
    unknown_score: float | None = None


def predict_files(
    files: Iterable[LabeledFile],
    preprocessor: ImagePreprocessor,
    predictor: Predictor,
    batch_size: int,
    threads: int | None = None,
) -> Generator[Prediction, None, None]:
    """Yield a prediction for each file, in order, with a few batches of pixels in memory.

    Args:
        files: The files to predict; their labels are ignored.
        preprocessor: Prepares images for the network.
        predictor: Predicts from pixels.
        batch_size: Images per batch.
        threads: Threads that prepare images; None: one per core.
    """
    files = iter(files)
    with ThreadPoolExecutor(threads or available_cores()) as pool:

        def submit(count: int) -> Iterator[tuple[str, Future]]:
            size = 0
            for file in islice(files, count):
                yield file.name, pool.submit(preprocess_file, preprocessor, file)
                # Members of a compressed tar have been read already.
                size += file.size
                if isinstance(file.location, MemoryLocation) and size > _BYTES_AHEAD:
                    return

        waiting = deque(submit(_BATCHES_AHEAD * batch_size))
        try:
            while batch := [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]:
                prepared = [(name, *future.result()) for name, future in batch]
                # While the network runs, the threads prepare the batch after the next one.
                waiting += submit(batch_size)
                yield from _predict_batch(prepared, predictor)
        finally:
            for _, future in waiting:
                future.cancel()


def _predict_batch(
    prepared: list[tuple[str, np.ndarray | None, str | None]], predictor: Predictor
) -> Iterator[Prediction]:
    images = [pixels for _, pixels, _ in prepared if pixels is not None]
    # Without a detector there are no unknown scores: zip_longest makes them None.
    outputs = predictor.run(np.stack(images)) if images else ()
    rows: Iterator[Any] = zip_longest(*outputs)
    for name, pixels, error in prepared:
        if pixels is None:
            yield Prediction(name, None, error)
            continue
        probabilities, embedding, unknown_score = next(rows)
        values = (probabilities, embedding, 0.0 if unknown_score is None else unknown_score)
        if all(np.isfinite(each).all() for each in values):
            yield Prediction(name, probabilities, None, embedding, unknown_score)
        else:
            yield Prediction(name, None, NAN_SCORES)


def preprocess_file(
    preprocessor: ImagePreprocessor, file: LabeledFile
) -> tuple[np.ndarray | None, str | None]:
    """Return (pixels, None), or (None, the reason why there are none)."""
    try:
        with _large_file if file.size > _LARGE_BYTES else nullcontext():
            return preprocessor.preprocess(file.location.read()), None
    except UnusableImageError as error:
        return None, str(error)
    except MemoryError:
        return None, "needs too much memory to decode"
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {reason_of(error)}"
