"""Random changes to training images: one small stateless function each, chosen by name in YAML.

`augmentations: [distorted_crop, flip, brightness=0.2]` applies them in that order. Each is a pure
function of its seed, so an epoch can be repeated, and resumed in the middle, exactly.
`docs/augmentations.md` shows each of them.

To add one, write a function of (image, strength, seed) that returns an image, both uint8 pixels in
[0, 255] of shape (height, width, channels), and register it in AUGMENTATIONS. Those that act on
colors, on coordinates, on the window to decode or on a whole batch have another signature: see
Augmentation. At strength 0, only crops are called. AutoGraph does not convert these functions: to
branch on a tensor, use tf.where or tf.cond, or decorate the function with tf.function.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from library.augmentation import color, geometry, mixing, policies
from library.augmentation.pipeline import (
    BATCH,
    COLOR,
    CROP,
    GEOMETRIC,
    Augmentation,
    Augmentations,
)


def distorted_crop(shape: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Choose a window: at strength 1, of 0.5 to 1 of the area and an aspect ratio of 0.5 to 1.5.

    A lower strength stays nearer to the whole image, on a logarithmic scale: an area of
    0.5 ** strength to 1, and an aspect ratio (width to height) that much nearer to the image's own.
    Images wider than 3:1 or narrower than 1:4 stay whole at any strength: no window of these aspect
    ratios has half of their area, and a smaller one would show too little of them.

    Args:
        shape: The image's shape, int32 (height, width, channels).
        strength: 0 to 1.
        seed: int64 (2,).

    Returns:
        The window, int32 (y, x, height, width); nothing else is decoded.
    """
    drawn_shape = shape if strength == 1 else _towards_square(shape, strength)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        drawn_shape,
        tf.zeros([0, 0, 4], tf.float32),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(0.5**strength, 1.5**strength),
        area_range=(0.5**strength, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    # Fewer ops than stacking four elements, each of which costs as much as changing some pixels.
    window = tf.gather(tf.concat([begin, size], 0), [0, 1, 3, 4])
    return window if strength == 1 else _rescale(window, drawn_shape, shape)


def pad_and_crop(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Shift by up to `strength` whole pixels each way, over a mirrored border.

    Unlike zeros, the mirror has no edge that a network could learn to look for. It is as large as
    the image, whose shorter edge is therefore the largest shift.
    """
    pixels, y, x = _draw_shift(image.shape, strength, seed)
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]], "SYMMETRIC")
    return tf.slice(padded, [y, x, 0], image.shape)


def flip(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Mirror left and right, with probability strength/2: strength 1 makes both equally likely."""
    return _reverse(image, 1, _is_mirrored(strength, seed))


def vertical_flip(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Mirror top and bottom, with probability strength/2: for images taken from above."""
    return _reverse(image, 0, _is_mirrored(strength, seed))


def gaussian_blur(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Blur with a Gaussian whose standard deviation is 0 to `strength` pixels."""
    radius = min(math.ceil(3 * strength), *image.shape[:2])
    deviation = tf.random.stateless_uniform([], seed, 0.0, strength)
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(offsets / tf.maximum(deviation, 0.1)))
    kernel = tf.repeat(weights[:, tf.newaxis] / tf.reduce_sum(weights), image.shape[-1], 1)
    pixels = tf.pad(image, [[radius, radius], [radius, radius], [0, 0]], "SYMMETRIC")
    pixels = tf.cast(pixels[tf.newaxis], tf.float32)
    # Separable: along the columns, then the rows, is far less work than a square kernel.
    for axis in (1, 0):
        filters = tf.expand_dims(tf.expand_dims(kernel, axis), -1)
        pixels = tf.nn.depthwise_conv2d(pixels, filters, [1, 1, 1, 1], "VALID")
    return color.to_uint8(pixels[0])


def random_erasing(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Fill a window with noise, with probability `strength`: 2 to 33 % of the area.

    Zhong et al. 2017, arXiv 1708.04896.
    """
    height, width, _ = image.shape
    chance, area, aspect, y, x = tf.unstack(tf.random.stateless_uniform([5], seed))
    edge = tf.sqrt(0.02 + 0.31 * area)
    # The logarithm of the aspect ratio is uniform, from 0.3 to 1 / 0.3.
    stretch = tf.pow(1 / 0.3, aspect - 0.5)
    rows = _window(height, edge * stretch, y)
    columns = _window(width, edge / stretch, x)
    noise = tf.random.stateless_uniform(image.shape, seed, 0, 256, tf.int32)
    is_erased = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis] & (chance < strength)
    return tf.where(is_erased, tf.cast(noise, tf.uint8), image)


def cutout(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Fill a square with gray; its edge is that share of the image's shorter one.

    DeVries and Taylor 2017, arXiv 1708.04552.
    """
    height, width, _ = image.shape
    edge = strength * min(height, width)
    y, x = tf.unstack(tf.random.stateless_uniform([2], seed))
    rows, columns = _window(height, edge / height, y), _window(width, edge / width, x)
    is_filled = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis]
    return tf.where(is_filled, tf.constant(128, tf.uint8), image)


def _is_mirrored(strength, seed):
    return tf.random.stateless_uniform([], seed) < 0.5 * strength


def _draw_shift(shape, strength, seed):
    """Return the largest shift, and that of the rows and the columns from it, in pixels."""
    pixels = min(int(strength), int(shape[0]), int(shape[1]))
    y, x = tf.unstack(tf.random.stateless_uniform([2], seed, 0, 2 * pixels + 1, tf.int32))
    return pixels, y, x


# What `augment_on_device` makes of pad_and_crop and of the flips.


def _shift(size, strength, seed):
    pixels, y, x = _draw_shift(size, strength, seed)
    return geometry.translation_matrix(x - pixels, y - pixels)


def _mirror_x(size, strength, seed):
    return geometry.mirror_matrix(_is_mirrored(strength, seed), False)


def _mirror_y(size, strength, seed):
    return geometry.mirror_matrix(False, _is_mirrored(strength, seed))


AUGMENTATIONS = {
    "distorted_crop": Augmentation(distorted_crop, 1.0, 1.0, CROP),
    "pad_and_crop": Augmentation(pad_and_crop, 4, 64, is_whole=True, geometry=_shift),
    "flip": Augmentation(flip, 1.0, 1.0, geometry=_mirror_x),
    "vertical_flip": Augmentation(vertical_flip, 1.0, 1.0, geometry=_mirror_y),
    "rotation": Augmentation(geometry.rotation, 15, 180, GEOMETRIC),
    "shear": Augmentation(geometry.shear, 0.2, 1.0, GEOMETRIC),
    "zoom": Augmentation(geometry.zoom, 0.2, 0.9, GEOMETRIC),
    "translation": Augmentation(geometry.translation, 0.1, 1.0, GEOMETRIC),
    "brightness": Augmentation(color.brightness, 0.125, 1.0, COLOR),
    "contrast": Augmentation(color.contrast, 0.5, 1.0, COLOR),
    "saturation": Augmentation(color.saturation, 0.5, 1.0, COLOR, needs_color=True),
    "hue": Augmentation(color.hue, 0.2, 0.5, COLOR, needs_color=True),
    "grayscale": Augmentation(color.grayscale, 0.2, 1.0, COLOR, needs_color=True),
    "gaussian_blur": Augmentation(gaussian_blur, 1.5, 10),
    "random_erasing": Augmentation(random_erasing, 0.25, 1.0),
    "cutout": Augmentation(cutout, 0.3, 1.0),
    "rand_augment": Augmentation(policies.rand_augment, 9, 30),
    "trivial_augment": Augmentation(policies.trivial_augment, 1.0, 1.0),
    "auto_augment": Augmentation(policies.auto_augment, 1.0, 1.0),
    "aug_mix": Augmentation(policies.aug_mix, 3, 10),
    "mixup": Augmentation(mixing.mixup, 0.2, 10, BATCH),
    "cutmix": Augmentation(mixing.cutmix, 1.0, 10, BATCH),
}


def choose_augmentations(words: Sequence[str]) -> Augmentations:
    """Return the Augmentations named by words such as `flip` or `brightness=0.2`."""
    return Augmentations(words, AUGMENTATIONS)


NO_AUGMENTATIONS = choose_augmentations(())


def _towards_square(shape, power):
    """Return the shape stretched to that power of its aspect ratio, as int64 against overflow."""
    size = tf.cast(shape[:2], tf.float32)
    aspect = size[1] / size[0]
    stretch = tf.maximum(tf.pow(aspect, [1 - power, power - 1]), 1.0)
    return tf.concat([tf.cast(tf.round(size * stretch), tf.int64), [3]], 0)


def _rescale(window, shape, new_shape):
    """Return where a window lies after its image was resized from one shape to another."""
    old, new = (tf.tile(tf.cast(each[:2], tf.int64), [2]) for each in (shape, new_shape))
    # Integers, divided last, so that the whole image stays whole. No window is empty.
    return tf.cast(tf.maximum(window * new // old, [0, 0, 1, 1]), tf.int32)


def _reverse(image, axis, happens):
    # tf.reverse with a boolean for its `dims` would be slowest for the images it leaves alone.
    return tf.cond(happens, lambda: tf.reverse(image, [axis]), lambda: image)


def _window(size, share, position):
    """Return bool (size,): a window of that share, inside as far as it fits."""
    pixels = share * size
    begin = position * tf.maximum(size - pixels, 0.0)
    rows = tf.range(size, dtype=tf.float32)
    return (rows >= begin) & (rows < begin + pixels)


INTRODUCTION = """# Augmentations

Random changes to training images, never to those of an evaluation. In `hyperparameters.yaml`, or as
`--augmentations` on the command line:

```yaml
augmentations: [distorted_crop, flip, brightness=0.2]
```

A bare name has the strength in the table; strength 0 leaves images as they are. Augmentations are
applied in the order in which they are written, except that a crop is always chosen first, before
decoding, and batches are mixed last. Neighbors that change colors, or coordinates, are fused:
together they cost about as much as one. Each is a pure function of an example's seed, which is made
from `random_seed`, the epoch and the example's position, so a resumed run repeats them exactly.

`augment_on_device: true` moves flips, `pad_and_crop`, changes of colors and of coordinates into the
training step, for the whole batch at once; only the random numbers are still drawn on the CPU. The
images are the same but for rounding and, if colors come before coordinates, clipping; `contrast`
takes the mean of the image as it was decoded. It is meant for a GPU whose CPU can't keep up
(`benchmark_inputs` tells). Without a GPU leave it off: measured on a CPU, colors and coordinates
cost the same, and a flip of 224 pixels 0.7 ms instead of 0.04. Augmentations that it can't move are
refused.

`distorted_crop` at strength 1 keeps half of an image or more; the window's aspect ratio (width to
height) is 0.5 to 1.5, whatever the image's own. A lower strength keeps `0.5 ** strength` or more,
and the aspect ratio is that much nearer to the image's own: for 16:9 at strength 0.5, between 0.94
and 1.63. Images wider than 3:1 or narrower than 1:4 stay whole at any strength, because no such
window has half of their area. `saturation`, `hue` and `grayscale` have no effect on images of one
channel; training logs that.

`python run.py preview` draws a batch of your own images. The sets `imagenet`, `cifar` and `none` of
`hyperparameters.yaml` are the usual recipes. `mixup` and `cutmix` also mix labels. Standardizing
each image (mean 0, standard deviation 1) is not an augmentation: `standardize_images: true` does it
in the network `simple`, and so also in evaluation and in the exported model. `residual` always does
it; `application` and `hub` preprocess images as their base was trained, and refuse it.

`make docs` regenerates this page."""
