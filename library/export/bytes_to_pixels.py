"""Image bytes → the network's pixels by TensorFlow operations alone, for a graph that travels.

The way of library/prediction/preprocess.py, to the same pixels: what conversion would store as it
is, is decoded as evaluation does. All else is made upright and opaque, shrunk, encoded as JPEG, and
then decoded so. LIMITS tells what differs.
"""

import tensorflow as tf

from library.dataset.images import FULL_COLOR_MAX_EDGE
from library.dataset.pixels import MIN_REDUCTION
from library.export.decode_other import check_pixels, decode_other
from library.export.jpeg_markers import read_markers
from library.export.orientation import read_png_orientation, turn
from library.export.shrinking import shrink
from library.inputs.decoding import REDUCTIONS, decode

LIMITS = (
    "JPEG, PNG, BMP and the first picture of a GIF are understood, and give the very pixels of an "
    "evaluation; where a large image is shrunk, a few of them differ by 1 of 255. TIFF and WebP "
    "are refused, and so are compressed BMPs and, by a network of gray images, CMYK.",
    "Color profiles (ICC) are left out of account.",
)


def prepare_bytes(encoded, image_format, options):
    """Return uint8 pixels of the format's shape from an image's bytes, a scalar string.

    `options` are the ImageOptions of the training images. Raises InvalidArgumentError in the graph.
    """
    jpeg, shape = _convert(encoded, options)
    return decode(jpeg, shape, image_format)


def _convert(encoded, options):
    """Give (a conformant JPEG, its shape), as convert_image does."""
    channels = 1 if options.color_space == "gray" else 3
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    shape = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded), lambda: tf.ones(3, "int32"))
    with tf.control_dependencies([check_pixels(shape[0], shape[1], options.max_pixels)]):
        markers = read_markers(encoded)
    size = _fitted_size(shape[:2], options.max_edge)
    is_kept = (
        is_jpeg
        & markers.is_baseline
        & markers.is_ycc
        & tf.equal(markers.orientation, 1)
        & tf.equal(shape[2], channels)
        & tf.reduce_all(tf.equal(shape[:2], size))
        & tf.equal(tf.strings.substr(encoded, -2, 2), b"\xff\xd9")
    )

    def other():
        pixels = decode_other(encoded, options.background, options.max_pixels)
        smaller = _fitted_size(tf.shape(pixels)[:2], options.max_edge)
        return pixels, smaller, read_png_orientation(encoded)

    def reduced():
        pixels = _decode_reduced(encoded, channels, shape[:2], size)
        return pixels, size, markers.orientation

    def converted():
        pixels, smaller, orientation = tf.cond(is_jpeg, reduced, other)
        image = turn(shrink(pixels, smaller), orientation)
        return _encode(image, options), tf.shape(image)

    return tf.cond(is_kept, lambda: (encoded, shape), converted)


def _decode_reduced(encoded, channels, sides, size):
    """Decode at 1/2, 1/4 or 1/8 what is much larger than wanted, as the converter does."""
    reduction = tf.reduce_min(sides / size) / MIN_REDUCTION
    number = tf.reduce_sum(tf.cast(reduction >= tf.constant(REDUCTIONS[1:], tf.float64), tf.int32))
    branches = [
        # `ratio` is bound now: a lambda looks names up when it runs.
        lambda ratio=ratio: tf.io.decode_jpeg(
            encoded, channels=channels, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )
        for ratio in REDUCTIONS
    ]
    return tf.switch_case(number, branches)


def _fitted_size(sides, max_edge):
    """Give (height, width) with the longer edge at most `max_edge` (0: any): see fitted_size."""
    if not max_edge:
        return sides
    longer = tf.cast(tf.reduce_max(sides), tf.float64)
    fitted = tf.cast(tf.round(tf.cast(sides * max_edge, tf.float64) / longer), tf.int32)
    return tf.where(longer > max_edge, tf.maximum(1, fitted), sides)


def _encode(image, options):
    """Return the JPEG that conversion would make of upright pixels."""
    sides, channels = tf.shape(image)[:2], tf.shape(image)[2]
    if options.color_space == "gray":
        image = tf.cond(tf.equal(channels, 1), lambda: image, lambda: _brightness(image))
        return tf.io.encode_jpeg(image, "grayscale", options.quality)

    def encoded(chroma_downsampling):
        return tf.io.encode_jpeg(
            image, "rgb", options.quality, chroma_downsampling=chroma_downsampling
        )

    is_small = tf.reduce_max(sides) <= FULL_COLOR_MAX_EDGE
    return tf.cond(is_small, lambda: encoded(False), lambda: encoded(True))


def _brightness(image):
    # OpenCV's weights, of which the sum is 2 ** 15.
    weighed = tf.reduce_sum(tf.cast(image, tf.int32) * [9798, 19235, 3735], -1, keepdims=True)
    return tf.cast((weighed + 2**14) // 2**15, tf.uint8)
