"""Encoded images → uint8 pixels at the network's size, decoding no more than necessary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import tensorflow as tf

from library.dataset.jpeg import MAX_DECODABLE_PIXELS, MAX_PIXELS_PER_BYTE
from library.inputs.aspect_ratio import SQUEEZED, Fit

# libjpeg decodes at 1/2, 1/4 and 1/8 for a fraction of the work: it drops the high frequencies,
# which is also a better low-pass filter than the bilinear resizing that follows.
REDUCTIONS = (1, 2, 4, 8)

# Chooses the window to decode, int32 (y, x, height, width), from an image's shape, int32
# (height, width, channels).
Crop = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class ImageFormat:
    """The network's input: `image_size` pixels square, or of another width; 1 or 3 channels.

    `fit` says how whole images of another aspect ratio get that shape.
    """

    image_size: int
    channels: int
    image_width: int | None = None
    fit: Fit = SQUEEZED

    def __post_init__(self) -> None:
        # Squares compare equal whether or not their width is given. Frozen from here on.
        object.__setattr__(self, "image_width", self.image_width or self.image_size)

    @classmethod
    def of(cls, network: keras.Model, fit: Fit = SQUEEZED) -> "ImageFormat":
        """Return the format of a network's input."""
        _, height, width, channels = network.input_shape
        return cls(height, channels, width, fit)

    def scaled(self, factor: float) -> "ImageFormat":
        """Return the format with height and width multiplied by a factor, at least one pixel."""
        height, width = (max(1, round(factor * size)) for size in self.shape[:2])
        return replace(self, image_size=height, image_width=width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.image_size, self.image_width or self.image_size, self.channels)

    def __str__(self) -> str:
        """Return words that differ whenever the pixels of an image do."""
        return "x".join(map(str, self.shape)) + str(self.fit)


def read_shape(
    encoded: tf.Tensor, recorded: tuple[tf.Tensor, tf.Tensor] | None = None
) -> tf.Tensor:
    """Return the shape of a JPEG, int32 (height, width, channels).

    It is an error (tf.errors.InvalidArgumentError) if height or width is not the recorded one,
    int64, or if so many pixels can't be in so few bytes: decoding would take memory for them all.
    """
    # These ops fail by themselves. Comparisons that lead to tf.Assert would be twice as many, which
    # small images notice.
    shape = tf.io.extract_jpeg_shape(encoded, tf.int64)
    height, width = recorded or (shape[0], shape[1])
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    limit = tf.minimum(MAX_PIXELS_PER_BYTE * size, MAX_DECODABLE_PIXELS)
    # Fails at any index but 0.
    zero = tf.gather(tf.zeros([1], tf.int64), height * width // limit)
    if recorded:
        # Fails unless height and width are equal. The first result is zeros.
        recorded_shape = tf.stack([height, width, zero])
        zero, _ = tf.raw_ops.ConcatOffset(concat_dim=2, shape=[shape, recorded_shape])
    return tf.cast(shape + zero, tf.int32)


def decode(
    encoded: tf.Tensor, shape: tf.Tensor, image_format: ImageFormat, crop: Crop | None = None
) -> tf.Tensor:
    """Decode a JPEG, or a window of it, at the network's size.

    Args:
        encoded: Scalar string.
        shape: The image's shape, int32 (height, width, …).
        image_format: Shape of the result. An image or window of that size keeps its exact pixels.
        crop: Chooses a window, which is resized without regard to its aspect ratio; if the image is
            decoded at 1/2, 1/4 or 1/8, it is rounded down to whole pixels of that. None: the
            format's `fit` says what becomes of the whole image.

    Returns:
        uint8 pixels of shape `image_format.shape`.
    """
    fit = image_format.fit
    *size, channels = image_format.shape
    window = crop(shape) if crop else fit.window(shape, size)
    # What the image or window is resized to.
    inner = size if crop else fit.inner_size(shape, size)
    wanted = shape[:2] if window is None else window[2:]

    # As small as libjpeg can make it without falling below the size of the network.
    number = tf.raw_ops.Bucketize(
        input=tf.reduce_min(wanted // inner), boundaries=[float(each) for each in REDUCTIONS[1:]]
    )

    def decode_reduced(ratio: int, is_exact: bool = False) -> tf.Tensor:
        # Color at half the resolution is repeated, not interpolated: resizing smooths it anyway.
        options = {"channels": channels, "ratio": ratio, "fancy_upscaling": is_exact}
        if window is None:
            return tf.io.decode_jpeg(encoded, **options)
        # The window counts pixels of the reduced image.
        reduced = window if ratio == 1 else window // ratio if crop else _enclose(window, ratio)
        return tf.raw_ops.DecodeAndCropJpeg(contents=encoded, crop_window=reduced, **options)

    branch, branches = number, [partial(decode_reduced, ratio) for ratio in REDUCTIONS]
    if channels > 1:
        is_exact = tf.reduce_all(tf.equal(wanted, inner))
        branch = tf.where(is_exact, len(branches), branch)
        branches.append(partial(decode_reduced, 1, is_exact=True))
    # Only the decoding is in branches: TensorFlow walks the ops of a branch that is not taken, too.
    image = tf.switch_case(branch, branches)
    if crop:
        return resize(image, size)
    ratio = tf.bitwise.left_shift(1, number)
    begin = None if window is None else window[:2] % ratio / ratio
    resized = tf.cond(
        tf.reduce_max((wanted if window is None else window) % ratio) > 0,
        lambda: resize_part(image, begin, wanted / ratio, inner),
        lambda: resize(image, inner),
    )
    padded = fit.pad(resized, size)
    padded.set_shape(image_format.shape)
    return padded


def resize(image: tf.Tensor, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Resize a uint8 image to (height, width), without regard to its aspect ratio.

    Bilinear: `decode` leaves less than a factor of two, for which a wider filter would cost more
    than the decoding did and change little.
    """
    images = tf.expand_dims(image, 0)
    if image.shape[-1] == 3:
        # The kernel would convert each uint8 about four times; for one channel that costs no more
        # than converting first.
        images = tf.cast(images, tf.float32)
    pixels = tf.raw_ops.ResizeBilinear(images=images, size=size, half_pixel_centers=True)
    return tf.squeeze(to_uint8(pixels), 0)


def resize_part(
    image: tf.Tensor, begin: tf.Tensor | None, extent: tf.Tensor, size: Sequence[int] | tf.Tensor
) -> tf.Tensor:
    """Do as `resize` does, for a part of an image that ends within its border pixels.

    Args:
        image: uint8 pixels.
        begin: float64 (y, x) where the part begins, in pixels, below 1; None: at the corner.
        extent: float64 (height, width) of the part, in pixels, at least `size`.
        size: (height, width) of the result.
    """
    extent = tf.cast(extent, tf.float32)
    half = 0.5 / tf.cast(size, tf.float32)
    # The centers of the result's first and last pixel. Rounding must not move them past the
    # border, where CropAndResize gives black.
    centers = extent * tf.stack([half, 1 - half]) - [[0.499], [0.501]]
    if begin is not None:
        centers += tf.cast(begin, tf.float32)
    # In CropAndResize, 1 is the center of the last pixel; of one pixel alone, any number is.
    last = tf.cast(tf.shape(image)[:2], tf.float32) - (1 - 1e-6)
    pixels = tf.raw_ops.CropAndResize(
        # The kernel takes longer to convert uint8.
        image=tf.cast(image, tf.float32)[tf.newaxis],
        boxes=tf.reshape(centers / last, [1, 4]),
        box_ind=[0],
        crop_size=size,
    )[0]
    return to_uint8(pixels)


def _enclose(window: tf.Tensor, ratio: int) -> tf.Tensor:
    """Return the smallest window of a reduced image that holds a window of the image."""
    begin = window[:2] // ratio
    end = -(-(window[:2] + window[2:]) // ratio)
    return tf.concat([begin, end - begin], 0)


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Round float32 pixels to uint8 and clip them to [0, 255]."""
    # One op that reads the pixels once; clipping, rounding and casting are four.
    quantized = tf.raw_ops.QuantizeV2(
        input=pixels, min_range=0.0, max_range=255.0, T=tf.quint8, mode="MIN_COMBINED"
    )[0]
    return tf.bitcast(quantized, tf.uint8)
