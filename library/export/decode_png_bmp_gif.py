"""Decode PNG, BMP and GIF to opaque RGB with TensorFlow operations alone, as Pillow does."""

import tensorflow as tf

# The usual masks of red, green and blue in a BMP's pixel of 32 bits.
_RGB_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


def decode_png_bmp_gif(
    encoded: tf.Tensor, background: tuple[int, int, int], max_pixels: int
) -> tf.Tensor:
    """Decode an image that is not a JPEG.

    Args:
        encoded: Scalar string.
        background: The RGB color behind transparent pixels.
        max_pixels: Larger images are refused.

    Returns:
        uint8 pixels (height, width, 3). The graph raises InvalidArgumentError for anything that
        is not such an image.
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


def check_pixel_count(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Return an operation that fails if an image has no pixels, or too many."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_valid = (pixels >= 1) & (pixels <= max_pixels)
    return tf.debugging.Assert(is_valid, ["the image has too many pixels:", width, height])


def _decode_png(encoded: tf.Tensor, background: tuple[int, int, int], max_pixels: int) -> tf.Tensor:
    header = _read_bytes(encoded, 16, 10)
    # Reversed by an op: of a slice with a negative stride TensorFlow's optimizer logs an error.
    width, height = (_little_endian(tf.reverse(each, [0])) for each in (header[:4], header[4:8]))
    with tf.control_dependencies([check_pixel_count(height, width, max_pixels)]):
        # 16 bits, which are reduced to 8 below as the converter does.
        wide = tf.cast(tf.io.decode_png(encoded, channels=4, dtype=tf.uint16), tf.int32)
    bits, is_gray = header[8], tf.equal(header[9], 0)
    # Pillow rounds 16-bit gray, and takes the upper 8 bits of everything else.
    pixels = tf.where(is_gray & (bits > 8), (wide * 255 + 32767) // 65535, wide // 256)
    # TensorFlow's alpha is wrong for gray of more or fewer bits than 8.
    alpha = tf.where(is_gray & (bits != 8), 255, pixels[..., 3:])
    # Pillow composites with a rounded division by 255.
    blended = pixels[..., :3] * alpha + tf.constant(background) * (255 - alpha) + 128
    return tf.cast((blended + blended // 256) // 256, tf.uint8)


def _decode_bmp(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decode a BMP of 8 bits, which are indices of a palette, or of 24 or 32."""
    header = _read_bytes(encoded, 0, 34)
    data_offset, header_bytes = _little_endian(header[10:14]), _little_endian(header[14:18])
    # A negative height means that the rows go from top to bottom.
    width, height = _little_endian(header[18:22]), tf.abs(_little_endian(header[22:26]))
    bits, compression = _little_endian(header[28:30]), _little_endian(header[30:34])
    # Compression 0 is none, 3 gives the masks of red, green and blue.
    has_masks = tf.equal(compression, 3) & tf.equal(tf.strings.substr(encoded, 54, 12), _RGB_MASKS)
    # The older headers of OS/2 are shorter.
    is_supported = (header_bytes >= 40) & (
        tf.equal(compression, 0) | has_masks & tf.equal(bits, 32)
    )
    checks = [
        check_pixel_count(height, width, max_pixels),
        tf.debugging.Assert(is_supported, ["BMP files of this kind are not supported"]),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)

    def decode_palette() -> tf.Tensor:
        palette = _read_bytes(encoded, 14 + header_bytes, data_offset - 14 - header_bytes)
        colors = tf.cast(tf.reverse(tf.reshape(palette, [-1, 4])[:, :3], [1]), tf.uint8)
        return tf.gather(colors, tf.cast(tf.io.decode_bmp(encoded)[..., 0], tf.int32))

    return tf.cond(
        tf.equal(bits, 8),
        decode_palette,
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _decode_gif(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decode a GIF's first frame; TensorFlow refuses what is not a GIF."""
    is_gif = tf.equal(tf.strings.substr(encoded, 0, 3), b"GIF")

    def read_size() -> tuple[tf.Tensor, tf.Tensor]:
        header = _read_bytes(encoded, 6, 4)
        return _little_endian(header[2:]), _little_endian(header[:2])

    height, width = tf.cond(is_gif, read_size, lambda: (1, 1))
    with tf.control_dependencies([check_pixel_count(height, width, max_pixels)]):
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _read_bytes(encoded: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """Return some bytes of a string as int32; fewer if it ends before."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, start, length), tf.uint8), tf.int32)


def _little_endian(values: tf.Tensor) -> tf.Tensor:
    """Return the integer of up to four bytes, the lowest first."""
    return tf.reduce_sum(values * 256 ** tf.range(tf.size(values)))
