"""Decode PNG, BMP and GIF to opaque RGB with TensorFlow operations alone, as Pillow does."""

import tensorflow as tf

# The usual masks of red, green and blue in a BMP's pixel of 32 bits.
_RGB_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"

# What stands before the blocks of a GIF that are no frame.
_EXTENSION = 0x21


def decode_png_bmp_gif(
    encoded: tf.Tensor,
    has_transparency: tf.Tensor,
    background: tuple[int, int, int],
    max_pixels: int,
) -> tf.Tensor:
    """Decode an image that is not a JPEG.

    Args:
        encoded: Scalar string.
        has_transparency: Whether a PNG has a chunk of transparent colors.
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
            (is_png, lambda: _decode_png(encoded, has_transparency, background, max_pixels)),
            (is_bmp, lambda: _decode_bmp(encoded, max_pixels)),
        ],
        default=lambda: _decode_gif(encoded, max_pixels),
    )


def check_pixel_count(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Return an operation that fails if an image has no pixels, or too many."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_valid = (height >= 1) & (width >= 1) & (pixels <= max_pixels)
    return tf.debugging.Assert(is_valid, ["the image has too many pixels:", width, height])


def refuse_if(condition: tf.Tensor, kind: str) -> tf.Operation:
    """Return an operation that fails for a kind of image that conversion treats differently."""
    text = f"an exported model does not take {kind}; convert the image to a plain JPEG or PNG"
    return tf.debugging.Assert(~condition, [text])


def _decode_png(
    encoded: tf.Tensor,
    has_transparency: tf.Tensor,
    background: tuple[int, int, int],
    max_pixels: int,
) -> tf.Tensor:
    header = _read_bytes(encoded, 16, 10)
    # Reversed by an op: of a slice with a negative stride TensorFlow's optimizer logs an error.
    width, height = (_little_endian(tf.reverse(each, [0])) for each in (header[:4], header[4:8]))
    bits, is_gray, is_palette = header[8], tf.equal(header[9], 0), tf.equal(header[9], 3)
    checks = [
        check_pixel_count(height, width, max_pixels),
        refuse_if(
            has_transparency & (is_gray & (bits != 8)), "PNGs of gray with a transparent shade"
        ),
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
    is_supported &= tf.equal(bits, 8) | tf.equal(bits, 24) | tf.equal(bits, 32)
    checks = [
        check_pixel_count(height, width, max_pixels),
        refuse_if(~is_supported, "BMPs but for plain ones of 8, 24 or 32 bits"),
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
    """Decode a GIF's first frame; refuse what is not a GIF."""
    is_gif = tf.equal(tf.strings.substr(encoded, 0, 4), b"GIF8")
    kind = "this format, only JPEG, PNG, BMP and GIF"
    with tf.control_dependencies([refuse_if(~is_gif, kind)]):
        content = tf.pad(tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32), [[0, 30]])
    size = tf.size(content)
    width, height = _little_endian(content[6:8]), _little_endian(content[8:10])
    # A palette of 2, 4, … 256 colors may stand behind the header.
    bits = tf.where(content[10] >= 128, content[10] % 8 + 1, 0)
    start = 13 + tf.where(bits > 0, 3 * 2**bits, 0)

    def is_extension(position: tf.Tensor, is_inside: tf.Tensor) -> tf.Tensor:
        byte = content[tf.minimum(position, size - 1)]
        return (position < size - 20) & (is_inside | tf.equal(byte, _EXTENSION))

    def skip_block(position: tf.Tensor, is_inside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # An extension begins with two bytes, then come blocks: a length, and so many bytes.
        length = tf.where(is_inside, content[position], 1)
        return position + 1 + length, ~is_inside | (length > 0)

    frame = tf.while_loop(is_extension, skip_block, [start, tf.constant(False)])[0]
    frame = tf.minimum(frame, size - 10) + 1
    corners = [_little_endian(content[frame + each : frame + each + 2]) for each in (0, 2, 4, 6)]
    fills_canvas = tf.reduce_all(tf.equal(corners, [0, 0, width, height]))
    checks = [
        check_pixel_count(height, width, max_pixels),
        refuse_if(~fills_canvas, "GIFs whose first frame does not fill the canvas"),
    ]
    with tf.control_dependencies(checks):
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _read_bytes(encoded: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """Return some bytes of a string as int32; fewer if it ends before."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, start, length), tf.uint8), tf.int32)


def _little_endian(values: tf.Tensor) -> tf.Tensor:
    """Return the integer of up to four bytes, the lowest first."""
    return tf.reduce_sum(values * 256 ** tf.range(tf.size(values)))
