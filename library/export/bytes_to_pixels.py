"""Turn image bytes into the network's pixels with TensorFlow operations alone, inside a SavedModel.

The result is that of library/prediction/preprocess.py: an image that conversion would store as it
is, is decoded as evaluation does; any other is oriented, flattened onto the background, shrunk,
encoded as JPEG and then decoded. LIMITATIONS lists the differences.
"""

from functools import partial

import tensorflow as tf

from library.dataset.options import ImageOptions
from library.dataset.pixels import MIN_REDUCTION
from library.export.color_profile import is_srgb_profile
from library.export.decode_png import check_pixel_count, decode_png, refuse_if
from library.export.image_headers import (
    UNKNOWN_ORIENTATION,
    apply_orientation,
    read_jpeg_markers,
    read_png_chunks,
)
from library.export.resize import shrink
from library.inputs.decoding import REDUCTIONS, ImageFormat, decode

LIMITATIONS = (
    "JPEG and PNG give the same pixels as evaluation, except that a few pixels of an image that is "
    "shrunk differ by up to 5 of 255, and that a JPEG whose data is damaged may be decoded as far "
    "as it goes.",
    "Other images are refused: all other formats, such as WebP, GIF and BMP; CMYK; JPEGs with "
    "stray bytes between their segments; ICC profiles of other colors than sRGB; an orientation "
    "that is in XMP alone, or stored in an odd type.",
)
# Longer compressed profiles are refused: what they expand to is unknown.
_MAX_PROFILE_BYTES = 65_536
# Metadata in which Pillow finds an orientation if Exif has none.
_XMP_ORIENTATION = 'tiff:Orientation(="|>)[2-8]'
_PNG_TEXT_EXIF = "Raw profile type exif"
# OpenCV's weights of red, green and blue, whose sum is 2 ** 15.
_GRAY_WEIGHTS = (9798, 19235, 3735)


def prepare_bytes(
    encoded: tf.Tensor, image_format: ImageFormat, options: ImageOptions
) -> tf.Tensor:
    """Prepare one image for the network.

    Args:
        encoded: The bytes of an image file, a scalar string.
        image_format: The size and channels that the network takes.
        options: How the training images were converted.

    Returns:
        uint8 pixels of the format's shape. The graph raises InvalidArgumentError for anything that
        is not an image.
    """
    jpeg, shape = _convert(encoded, options)
    return decode(jpeg, shape, image_format)


def _convert(encoded: tf.Tensor, options: ImageOptions) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (a baseline JPEG, its shape), as convert_image does."""
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    return tf.cond(
        is_jpeg, lambda: _convert_jpeg(encoded, options), lambda: _convert_png(encoded, options)
    )


def _convert_jpeg(encoded: tf.Tensor, options: ImageOptions) -> tuple[tf.Tensor, tf.Tensor]:
    channels = 1 if options.color_space == "gray" else 3
    shape = tf.io.extract_jpeg_shape(encoded)
    with tf.control_dependencies([check_pixel_count(shape[0], shape[1], options.max_pixels)]):
        markers = read_jpeg_markers(encoded)
    profile = _substring(encoded, markers.profile)
    is_srgb = tf.cond(
        tf.equal(markers.profile[0], 0), lambda: True, lambda: is_srgb_profile(profile)
    )
    checks = [
        refuse_if(~is_srgb, "the colors of a JPEG's ICC profile"),
        refuse_if(shape[2] > 3, "CMYK"),
        refuse_if(~markers.is_plain, "JPEGs with stray bytes between their segments"),
        *_check_orientation(encoded, markers.orientation, _XMP_ORIENTATION),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)
    size = _fitted_size(shape[:2], options.max_edge)
    is_stored_unchanged = (
        markers.is_baseline
        & markers.is_ycc
        & tf.equal(markers.orientation, 1)
        & tf.equal(shape[2], channels)
        & tf.reduce_all(tf.equal(shape[:2], size))
    )

    def convert() -> tuple[tf.Tensor, tf.Tensor]:
        pixels, extent = _decode_reduced(encoded, channels, shape[:2], size)
        image = apply_orientation(shrink(pixels, size, extent), markers.orientation)
        return _encode(image, options), tf.shape(image)

    return tf.cond(is_stored_unchanged, lambda: (encoded, shape), convert)


def _convert_png(encoded: tf.Tensor, options: ImageOptions) -> tuple[tf.Tensor, tf.Tensor]:
    chunks = read_png_chunks(encoded)
    is_srgb = _is_srgb_chunk(_substring(encoded, chunks.profile))
    pattern = f"{_XMP_ORIENTATION}|{_PNG_TEXT_EXIF}"
    checks = [
        refuse_if(~is_srgb, "the colors of a PNG's ICC profile"),
        *_check_orientation(encoded, chunks.orientation, pattern),
    ]
    with tf.control_dependencies(checks):
        pixels = decode_png(
            encoded, chunks.has_transparency, options.background, options.max_pixels
        )
    size = _fitted_size(tf.shape(pixels)[:2], options.max_edge)
    image = apply_orientation(shrink(pixels, size), chunks.orientation)
    return _encode(image, options), tf.shape(image)


def _check_orientation(
    encoded: tf.Tensor, orientation: tf.Tensor, other: str
) -> tuple[tf.Operation, tf.Operation]:
    """Return operations that fail for orientations the graph cannot read.

    Args:
        encoded: The file.
        orientation: That of its Exif.
        other: Pattern of other metadata with an orientation.
    """
    rest = tf.strings.regex_replace(encoded, other, "", replace_global=False)
    is_elsewhere = tf.equal(orientation, 1) & tf.not_equal(rest, encoded)
    is_odd = tf.equal(orientation, UNKNOWN_ORIENTATION)
    return (
        refuse_if(is_elsewhere, "an orientation in XMP or text"),
        refuse_if(is_odd, "an orientation of an odd type"),
    )


def _substring(encoded: tf.Tensor, span: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, span[0], span[1] - span[0])


def _is_srgb_chunk(chunk: tf.Tensor) -> tf.Tensor:
    """Return whether a PNG's chunk of an ICC profile, empty if there is none, is that of sRGB."""
    size = tf.strings.length(chunk)

    def read() -> tf.Tensor:
        # A name that ends with a zero, one byte of the method, and the compressed profile.
        name = tf.io.decode_raw(tf.strings.substr(chunk, 0, 80), tf.uint8)
        end = tf.concat([tf.where(tf.equal(name, 0))[:, 0], [0]], 0)[0]
        start = tf.cast(end, tf.int32) + 2
        return is_srgb_profile(
            tf.io.decode_compressed(tf.strings.substr(chunk, start, size), "ZLIB")
        )

    is_short = (size > 2) & (size < _MAX_PROFILE_BYTES)
    return tf.cond(is_short, read, lambda: tf.equal(size, 0))


def _decode_reduced(
    encoded: tf.Tensor, channels: int, image_size: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a JPEG much larger than `size` at 1/2, 1/4 or 1/8, as the converter does.

    Returns:
        The pixels, and how many of them the image covers: float64 (height, width).
    """
    ratios = tf.constant(REDUCTIONS, tf.float64)
    reduction = tf.reduce_min(image_size / size) / MIN_REDUCTION
    number = tf.reduce_sum(tf.cast(reduction >= ratios[1:], tf.int32))
    branches = [
        partial(
            tf.io.decode_jpeg,
            encoded,
            channels=channels,
            ratio=ratio,
            dct_method="INTEGER_ACCURATE",
        )
        for ratio in REDUCTIONS
    ]
    return tf.switch_case(number, branches), tf.cast(image_size, tf.float64) / ratios[number]


def _fitted_size(size: tf.Tensor, max_edge: int) -> tf.Tensor:
    """Return (height, width) with edges of at most `max_edge` (0: any), as `fitted_size` does."""
    if not max_edge:
        return size
    longer = tf.cast(tf.reduce_max(size), tf.float64)
    fitted = tf.cast(tf.round(tf.cast(size * max_edge, tf.float64) / longer), tf.int32)
    return tf.where(longer > max_edge, tf.maximum(1, fitted), size)


def _encode(image: tf.Tensor, options: ImageOptions) -> tf.Tensor:
    """Return the JPEG that conversion makes of pixels."""
    size, channels = tf.shape(image)[:2], tf.shape(image)[2]
    if options.color_space == "gray":
        image = tf.cond(tf.equal(channels, 1), lambda: image, lambda: _to_gray(image))
        return tf.io.encode_jpeg(image, "grayscale", options.quality)

    def encode_rgb(chroma_downsampling: bool) -> tf.Tensor:
        return tf.io.encode_jpeg(
            image, "rgb", options.quality, chroma_downsampling=chroma_downsampling
        )

    is_small = tf.reduce_max(size) <= options.full_color_max_edge
    return tf.cond(is_small, lambda: encode_rgb(False), lambda: encode_rgb(True))


def _to_gray(image: tf.Tensor) -> tf.Tensor:
    weighted = tf.reduce_sum(tf.cast(image, tf.int32) * _GRAY_WEIGHTS, -1, keepdims=True)
    return tf.cast((weighted + 2**14) // 2**15, tf.uint8)
