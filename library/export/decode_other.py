"""PNG, BMP and GIF → opaque RGB, by TensorFlow operations alone: the pixels that Pillow gives."""

import tensorflow as tf

# Where red, green and blue are in the 32 bits of a BMP's pixel.
_USUAL_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


def decode_other(encoded, background, max_pixels):
    """Return uint8 pixels (height, width, 3) of what is no JPEG, a scalar string.

    What is transparent shows the `background`, three numbers. Raises InvalidArgumentError in the
    graph, for what is no image at all, too.
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")
    is_bmp = tf.equal(tf.strings.substr(encoded, 0, 2), b"BM")
    return tf.case(
        [
            (is_png, lambda: _decode_png(encoded, background, max_pixels)),
            (is_bmp, lambda: _decode_bmp(encoded, max_pixels)),
        ],
        default=lambda: _decode_gif(encoded, max_pixels),
    )


def check_pixels(height, width, max_pixels):
    """Return an operation that fails where an image has no pixels, or too many."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_good = (pixels >= 1) & (pixels <= max_pixels)
    return tf.debugging.Assert(is_good, ["the image has too many pixels:", width, height])


def _decode_png(encoded, background, max_pixels):
    header = _numbers(encoded, 16, 10)
    height, width = _little(header[7:3:-1]), _little(header[3::-1])
    with tf.control_dependencies([check_pixels(height, width, max_pixels)]):
        # 16 bits, of which 8 are taken as the converter does.
        wide = tf.cast(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16), tf.int32)
    bits, is_gray = header[8], tf.equal(header[9], 0)
    # Gray of 16 bits is rounded; of all else Pillow takes the upper 8.
    pixels = tf.where(is_gray & (bits > 8), (wide * 255 + 32767) // 65535, wide // 256)
    # Of gray with more or fewer bits than 8, TensorFlow's alpha is none.
    alpha = tf.where(is_gray & (bits != 8), 255, pixels[..., 3:])
    # As Pillow composes: rounded division by 255.
    blended = pixels[..., :3] * alpha + tf.constant(background) * (255 - alpha) + 128
    return tf.cast((blended + blended // 256) // 256, tf.uint8)


def _decode_bmp(encoded, max_pixels):
    """Of 8 bits, which are places in a palette, or of 24 or 32."""
    header = _numbers(encoded, 0, 34)
    begin, length = _little(header[10:14]), _little(header[14:18])
    # A negative height means that the rows go downwards.
    width, height = _little(header[18:22]), tf.abs(_little(header[22:26]))
    bits, packing = _little(header[28:30]), _little(header[30:34])
    # Packing 3 tells which bits are red, green and blue. The others compress.
    has_masks = tf.equal(packing, 3) & tf.equal(tf.strings.substr(encoded, 54, 12), _USUAL_MASKS)
    # Older headers, of OS/2, are shorter.
    is_known = (length >= 40) & (tf.equal(packing, 0) | has_masks & tf.equal(bits, 32))
    checks = [
        check_pixels(height, width, max_pixels),
        tf.debugging.Assert(is_known, ["the BMP is of a kind that is not understood"]),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)

    def colored():
        palette = _numbers(encoded, 14 + length, begin - 14 - length)
        colors = tf.cast(tf.reshape(palette, [-1, 4])[:, 2::-1], tf.uint8)
        return tf.gather(colors, tf.cast(tf.io.decode_bmp(encoded)[..., 0], tf.int32))

    return tf.cond(
        tf.equal(bits, 8),
        colored,
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _decode_gif(encoded, max_pixels):
    """Of the first picture; whatever is no GIF is left to TensorFlow to refuse."""
    is_gif = tf.equal(tf.strings.substr(encoded, 0, 3), b"GIF")

    def sides():
        header = _numbers(encoded, 6, 4)
        return _little(header[2:]), _little(header[:2])

    height, width = tf.cond(is_gif, sides, lambda: (1, 1))
    with tf.control_dependencies([check_pixels(height, width, max_pixels)]):
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _numbers(encoded, start, length):
    """Return some bytes of a string as int32; fewer where it ends before."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, start, length), tf.uint8), tf.int32)


def _little(numbers):
    """Return the number that up to four bytes make, the lowest first."""
    return tf.reduce_sum(numbers * 256 ** tf.range(tf.size(numbers)))
