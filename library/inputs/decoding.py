"""Encoded image → uint8 pixels at the network's size, decoding no more than it takes."""

from dataclasses import dataclass

import tensorflow as tf

# libjpeg decodes at 1/2, 1/4 and 1/8 for a fraction of the work: it leaves out frequencies, which
# is also a better low-pass filter than what comes after it.
REDUCTIONS = (1, 2, 4, 8)


@dataclass(frozen=True)
class ImageFormat:
    """What the network takes: squares of image_size pixels, or another width, 1 or 3 channels."""

    image_size: int
    channels: int
    image_width: int | None = None

    def __post_init__(self):
        # Squares are equal, whether or not their width is said. It is frozen for everyone else.
        object.__setattr__(self, "image_width", self.image_width or self.image_size)

    @classmethod
    def of(cls, network):
        """Return the format of a Keras network's images."""
        _, height, width, channels = network.input_shape
        return cls(height, channels, width)

    @property
    def shape(self):
        """(height, width, channels)."""
        return (self.image_size, self.image_width, self.channels)


def decode(encoded, shape, image_format, crop=None):
    """Return uint8 pixels of the format's shape from a JPEG, or from a window of it.

    Takes a scalar string, its image's shape int32 (height, width, …), and a function of that shape
    that gives the window, int32 (y, x, height, width). What has the network's size already keeps
    its very pixels; all else is squeezed into it.
    """
    window = crop(shape) if crop else None
    *size, channels = image_format.shape
    wanted = shape[:2] if window is None else window[2:]

    # As small as libjpeg can make it without falling below what the network wants.
    reducible = tf.cast(tf.reduce_min(wanted // size) >= REDUCTIONS[1:], tf.int32)
    is_exact = tf.reduce_all(tf.equal(wanted, size))
    # Only decoding is chosen: what a branch holds is walked through even where it is not taken.
    image = tf.switch_case(
        tf.where(is_exact, 0, 1 + tf.reduce_sum(reducible)),
        [
            lambda: _decode_reduced(encoded, window, channels, is_exact=True),
            # `each` is bound now: a lambda looks names up when it runs.
            *(
                lambda each=each: _decode_reduced(encoded, window, channels, each)
                for each in REDUCTIONS
            ),
        ],
    )
    return tf.ensure_shape(resize(image, size), image_format.shape)


def resize(image, size):
    """Return a uint8 image squeezed to a size of (height, width).

    Bilinear: `decode` leaves less than a halving to do, where more taps would cost more than the
    decoding did and change little.
    """
    pixels = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=size, half_pixel_centers=True
    )[0]
    return to_uint8(pixels)


def _decode_reduced(encoded, window, channels, reduction=1, is_exact=False):
    # Color at half the resolution is repeated, not interpolated: resizing smooths it anyway.
    choice = {"channels": channels, "ratio": reduction, "fancy_upscaling": is_exact}
    if window is None:
        return tf.io.decode_jpeg(encoded, **choice)
    # The window counts pixels of the reduced image.
    return tf.raw_ops.DecodeAndCropJpeg(contents=encoded, crop_window=window // reduction, **choice)


def to_uint8(pixels):
    """Round float32 pixels to uint8, those out of range to the nearest end."""
    # One operation that goes through the pixels once, where clipping, rounding and casting are 4.
    quantized = tf.raw_ops.QuantizeV2(
        input=pixels, min_range=0.0, max_range=255.0, T=tf.quint8, mode="MIN_COMBINED"
    )[0]
    return tf.bitcast(quantized, tf.uint8)
