"""Decode PNG to opaque RGB with TensorFlow operations alone, as Pillow does."""

import numpy as np
import tensorflow as tf

_BIG_ENDIAN = 256 ** np.arange(3, -1, -1)


def check_pixel_count(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Return an operation that fails if an image has no pixels, or too many."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_valid = (height >= 1) & (width >= 1) & (pixels <= max_pixels)
    return tf.debugging.Assert(is_valid, ["the image has too many pixels:", width, height])


def refuse_if(condition: tf.Tensor, kind: str) -> tf.Operation:
    """Return an operation that fails for a kind of image that conversion treats differently."""
    text = f"an exported model does not take {kind}; convert the image to a plain JPEG or PNG"
    return tf.debugging.Assert(~condition, [text])


def decode_png(
    encoded: tf.Tensor,
    has_transparency: tf.Tensor,
    background: tuple[int, int, int],
    max_pixels: int,
) -> tf.Tensor:
    """Decode a PNG.

    Args:
        encoded: Scalar string.
        has_transparency: Whether it has a chunk of transparent colors.
        background: The RGB color behind transparent pixels.
        max_pixels: Larger images are refused.

    Returns:
        uint8 pixels (height, width, 3). The graph raises InvalidArgumentError for anything that
        is not a PNG.
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")
    with tf.control_dependencies([refuse_if(~is_png, "this format, only JPEG and PNG")]):
        header = tf.strings.substr(encoded, 16, 10)
    header = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int32)
    width, height = (tf.reduce_sum(each * _BIG_ENDIAN) for each in (header[:4], header[4:8]))
    bits, is_gray, is_palette = header[8], tf.equal(header[9], 0), tf.equal(header[9], 3)
    checks = [
        check_pixel_count(height, width, max_pixels),
        refuse_if(has_transparency & is_gray, "PNGs of gray with a transparent shade"),
    ]
    with tf.control_dependencies(checks):
        # 16 bits, which are reduced to 8 below as the converter does.
        wide = tf.cast(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16), tf.int32)
    # Pillow rounds 16-bit gray, and takes the upper 8 bits of everything else.
    pixels = tf.where(is_gray & (bits > 8), (wide * 255 + 32767) // 65535, wide // 256)
    # TensorFlow's alpha is wrong for gray and palettes of other bits than 8.
    is_opaque = ~has_transparency & (is_gray | is_palette)
    alpha = tf.where(is_opaque, 255, pixels[..., 3:])
    # Pillow composites with a rounded division by 255.
    blended = pixels[..., :3] * alpha + tf.constant(background) * (255 - alpha) + 128
    return tf.cast((blended + blended // 256) // 256, tf.uint8)
