"""Image bytes → the network's pixels by TensorFlow operations alone, for a graph that travels.

The way of library/prediction/pictures.py: what conversion would store as it is, is decoded as
evaluation does, to the bit. All else is made upright and opaque, shrunk, encoded as JPEG, and then
decoded so. LIMITS tells what differs.
"""

import tensorflow as tf

from library.inputs.decoding import REDUCTIONS, decode
from library.shipping.orientation import read_orientation, turn

LIMITS = (
    "JPEGs that conversion would store as they are (baseline, upright, not too large) give the "
    "very pixels of an evaluation. All others are encoded as JPEG once more, as conversion does, "
    "by an encoder that rounds otherwise; and larger ones are shrunk with Lanczos in place of the "
    "converter's filter: their pixels differ by about 1 of 255.",
    "Colour profiles (ICC), and the orientation that a PNG may carry, are left out of account.",
    "JPEG, PNG, BMP and the first picture of a GIF are understood; TIFF and WebP are not.",
)
# As in library/dataset/images.py.
_SMALL_EDGE = 128


def prepare_bytes(encoded, image_format, options):
    """Give uint8 pixels of the format's shape from an image's bytes, a scalar string.

    `options` are the ImageOptions of the training images. Raises InvalidArgumentError in the graph.
    """
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    return tf.cond(
        is_jpeg,
        lambda: _prepare_jpeg(encoded, image_format, options),
        lambda: _prepare_other(encoded, image_format, options),
    )


def _prepare_jpeg(encoded, image_format, options):
    shape = tf.io.extract_jpeg_shape(encoded)
    with tf.control_dependencies([_check_pixels(shape[0], shape[1], options)]):
        orientation = read_orientation(encoded)
    longer = tf.reduce_max(shape[:2])
    channels = 1 if options.color_space == "gray" else 3
    is_kept = tf.equal(orientation, 1) & tf.equal(shape[2], channels)
    if options.max_edge:
        is_kept &= longer <= options.max_edge

    def as_it_is():
        return decode(encoded, shape, image_format)

    def changed():
        image = _decode_reduced(encoded, channels, longer, options.max_edge)
        image = turn(_shrink(image, shape, options.max_edge), orientation)
        return _stored(image, image_format, options)

    return tf.cond(is_kept, as_it_is, changed)


def _decode_reduced(encoded, channels, longer, max_edge):
    """Decode at 1/2, 1/4 or 1/8 what is much larger than wanted, as the converter does."""
    # 1.2, as LEAST_REDUCTION in library/dataset/pixels.py: what is left for the filter.
    reduction = tf.cast(longer, tf.float32) / (max_edge * 1.2) if max_edge else tf.constant(1.0)
    number = tf.reduce_sum(tf.cast(reduction >= tf.constant(REDUCTIONS[1:], tf.float32), tf.int32))
    branches = [
        lambda ratio=ratio: tf.io.decode_jpeg(encoded, channels=channels, ratio=ratio)
        for ratio in REDUCTIONS
    ]
    return tf.switch_case(number, branches)


def _prepare_other(encoded, image_format, options):
    is_png = tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")
    pixels = tf.cond(
        is_png,
        lambda: _decode_png(encoded, options),
        # Raises for what is no image at all.
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return _stored(_shrink(pixels, tf.shape(pixels), options.max_edge), image_format, options)


def _decode_png(encoded, options):
    """Give opaque RGB of a PNG: what is transparent shows the background."""
    declared = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.uint8), tf.int32)
    sides = tf.reduce_sum(tf.reshape(declared, [2, 4]) * [256**3, 256**2, 256, 1], 1)
    with tf.control_dependencies([_check_pixels(sides[1], sides[0], options)]):
        # 16 bits, because 8 bits of them would be cut off, not rounded.
        wide = tf.cast(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16), tf.int32)
    pixels = (wide * 255 + 32767) // 65535
    alpha, background = pixels[..., 3:], tf.constant(options.background)
    # As Pillow composes: rounded division by 255.
    blended = pixels[..., :3] * alpha + background * (255 - alpha) + 128
    return tf.cast((blended + blended // 256) // 256, tf.uint8)


def _check_pixels(height, width, options):
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_good = (pixels >= 1) & (pixels <= options.max_pixels)
    return tf.debugging.Assert(is_good, ["the image has too many pixels:", width, height])


def _shrink(image, shape, max_edge):
    """Give the image with the longer edge of its full `shape` at most `max_edge` (0: any)."""
    if not max_edge:
        return image
    sides = tf.cast(shape[:2], tf.float64)
    longer = tf.reduce_max(sides)
    fitted = tf.maximum(1, tf.cast(tf.round(sides * max_edge / longer), tf.int32))

    def shrunk():
        smaller = tf.image.resize(image, fitted, "lanczos3", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(smaller), 0, 255), tf.uint8)

    return tf.cond(longer > max_edge, shrunk, lambda: image)


def _stored(image, image_format, options):
    """Give the network's pixels of an image that conversion would encode anew."""
    shape = tf.shape(image)
    if options.color_space == "gray":
        if image.shape[-1] != 1:
            image = tf.cond(tf.equal(shape[2], 1), lambda: image, lambda: _brightness(image))
        encoded = tf.io.encode_jpeg(image, "grayscale", options.quality)
    else:
        small = tf.reduce_max(shape[:2]) <= _SMALL_EDGE
        encoded = tf.cond(
            small,
            lambda: _encode(image, options.quality, chroma_downsampling=False),
            lambda: _encode(image, options.quality, chroma_downsampling=True),
        )
    return decode(encoded, shape, image_format)


def _brightness(image):
    weights = tf.constant([0.299, 0.587, 0.114])
    gray = tf.reduce_sum(tf.cast(image, tf.float32) * weights, -1, keepdims=True)
    return tf.cast(tf.round(gray), tf.uint8)


def _encode(image, quality, chroma_downsampling):
    return tf.io.encode_jpeg(image, "rgb", quality, chroma_downsampling=chroma_downsampling)
