"""Any image's bytes → the very pixels that evaluation shows the network.

By the same two steps: the converter's (contents decide; upright, opaque, sRGB, no larger than it
was told), to JPEG bytes; and those of an evaluation's input, to the network's size. Anything less
would be faster, and a network would see other pixels than those it was measured on.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.dataset.read_bytes import read_content
from library.dataset.worker_pool import available_cores
from library.errors import reason_of
from library.inputs.decoding import ImageFormat, decode


class Pictures:
    """Prepares images for one network. May be used by several threads at once.

    `convert` may be that of Converters, in the place of convert_image.
    """

    def __init__(self, image_format, options=None, convert=convert_image):
        self.image_format = image_format
        self._options = options or ImageOptions()
        self._convert = convert
        self._decode = self._traced()

    @classmethod
    def of(cls, snapshot, convert=convert_image):
        """Return what prepares images as the Snapshot's network learned them."""
        return cls(ImageFormat.of(snapshot.network), snapshot.image_options, convert)

    def pixels(self, content):
        """Return uint8 pixels (height, width, channels) from a file's bytes.

        Raises UnusableImageError, whose text says why after the file's name; MemoryError.
        """
        return self.decode(*self._convert(content, self._options))

    def decode(self, encoded, height, width):
        """Give `pixels` of what convert_image gave. Raises UnusableImageError."""
        try:
            return self._decode(tf.constant(encoded), tf.constant([height, width, 3])).numpy()
        except tf.errors.InvalidArgumentError:
            # A conformant JPEG is taken as it is, so damage within its data shows only now.
            raise UnusableImageError("is a damaged JPEG: its data can't be decoded") from None

    def read(self, path):
        """Give `pixels` of a file. Raises UnusableImageError, OSError."""
        return self.pixels(Path(path).read_bytes())

    def _traced(self):
        @tf.function(
            input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([3], tf.int32)],
            autograph=False,
        )
        def traced(encoded, shape):
            # Where evaluation does it too: a GPU would round otherwise.
            with tf.device("/CPU:0"):
                return decode(encoded, shape, self.image_format)

        return traced.get_concrete_function()


# Batches whose images are prepared, or being prepared, ahead of the network.
_BATCHES_AHEAD = 2
# Such a row would have some class as its likeliest one, and pass any threshold.
NO_NUMBERS = "gives scores that are no numbers"


@dataclass(frozen=True)
class Prediction:
    """What is said of one file: float32 probabilities (classes,), or the reason why none are.

    The embedding, float32 (size,), is empty unless the Predictor gives one.
    """

    name: str
    probabilities: np.ndarray | None
    reason: str | None = None
    embedding: np.ndarray | None = None


def predict_files(files, pictures, predictor, batch_size, threads=None):
    """Yield a Prediction for each of the LabeledFiles, in their order.

    Memory holds a few batches of pixels, however many files there are.
    """
    files = iter(files)
    with ThreadPoolExecutor(threads or available_cores()) as pool:

        def start(count):
            return [
                (each.name, pool.submit(_prepare, pictures, each)) for each in islice(files, count)
            ]

        waiting = deque(start(_BATCHES_AHEAD * batch_size))
        try:
            while batch := [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]:
                prepared = [(name, *future.result()) for name, future in batch]
                # While the network is busy, the threads have the batch after the next one to do.
                waiting += start(batch_size)
                yield from _predict(prepared, predictor)
        finally:
            for _, future in waiting:
                future.cancel()


def _predict(prepared, predictor):
    images = [pixels for _, pixels, _ in prepared if pixels is not None]
    rows = zip(*predictor.predict(np.stack(images)), strict=True) if images else iter(())
    for name, pixels, reason in prepared:
        row = (None, None) if pixels is None else next(rows)
        if pixels is not None and not all(np.isfinite(each).all() for each in row):
            row, reason = (None, None), NO_NUMBERS
        probabilities, embedding = row
        yield Prediction(name, probabilities, reason, embedding)


def _prepare(pictures, file):
    """Give (pixels, None) or (None, the reason why not) for a LabeledFile."""
    try:
        return pictures.pixels(read_content(file.place)), None
    except UnusableImageError as error:
        return None, str(error)
    except MemoryError:
        return None, "needs too much memory to decode"
    except (OSError, ValueError) as error:
        return None, f"can't be read: {reason_of(error)}"
