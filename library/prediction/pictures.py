"""Any image's bytes → the very pixels that evaluation shows the network.

By the same two steps: the converter's (contents decide; upright, opaque, sRGB, no larger than it
was told), to JPEG bytes; and those of an evaluation's input, to the network's size. Anything less
would be faster, and a network would see other pixels than those it was measured on.
"""

from pathlib import Path

import tensorflow as tf

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
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
        """Give what prepares images as the Snapshot's network learnt them."""
        return cls(ImageFormat.of(snapshot.network), snapshot.image_options, convert)

    def pixels(self, content):
        """Give uint8 pixels (height, width, channels) from a file's bytes.

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
