import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.inputs.decoding import REDUCTIONS, ImageFormat, decode, resize
from tests.helpers.jpeg_variants import CONFORMANT, UNUSUAL_SAMPLING


def gradient(height, width):
    """Smooth, and different everywhere, so that a wrong window shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 0 * x + 90], -1).astype(np.uint8)


def encoded(pixels):
    return tf.io.encode_jpeg(pixels, quality=98, chroma_downsampling=False)


def decoded(pixels, size, window=None, channels=3):
    crop = None if window is None else (lambda shape: tf.constant(window))
    shape = tf.constant(pixels.shape)
    image = decode(encoded(pixels), shape, ImageFormat(size, channels), crop)
    assert image.dtype == tf.uint8
    assert image.shape == (size, size, channels)
    return image.numpy().astype(int)


def test_decode_keeps_pixels_of_the_right_size():
    pixels = gradient(24, 24)
    assert np.array_equal(decoded(pixels, 24), tf.io.decode_jpeg(encoded(pixels)))


@pytest.mark.parametrize("size", [7, 16, 24, 60, 300])
def test_decode_resizes_to_any_size(size):
    pixels = gradient(256, 160)
    expected = gradient(size, size).astype(int)
    assert np.abs(decoded(pixels, size) - expected)[2:-2, 2:-2].max() <= 20 + 255 / size


@pytest.mark.parametrize("size", [8, 30, 64, 128])
def test_decode_of_a_reduced_window_equals_resizing_it(size):
    pixels = gradient(403, 301)
    y, x, height, width = window = (101, 37, 256, 200)
    part = tf.constant(pixels[y : y + height, x : x + width])
    expected = tf.image.resize(tf.cast(part, tf.float32), [size, size], antialias=True)
    assert np.abs(decoded(pixels, size, window) - expected).mean() < 3
    expected = expected.numpy()
    gray = decoded(pixels, size, window, channels=1)[..., 0]
    assert np.abs(gray - expected @ np.array([0.299, 0.587, 0.114])).mean() < 5


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (100, 30), (7, 300)])
def test_decode_to_formats_that_are_not_square(height, width):
    pixels, form = gradient(256, 160), ImageFormat(height, 3, width)
    assert form.shape == (height, width, 3)
    image = decode(encoded(pixels), tf.constant(pixels.shape), form).numpy().astype(int)
    difference = np.abs(image - gradient(height, width).astype(int))[2:-2, 2:-2]
    assert difference.max() <= 20 + 255 / min(height, width)
    # What fits is not touched.
    exact = decode(encoded(pixels), tf.constant(pixels.shape), ImageFormat(256, 3, 160))
    assert np.array_equal(exact, tf.io.decode_jpeg(encoded(pixels)))


def test_decode_uses_the_reduction_of_the_window():
    pixels = gradient(400, 400)
    # 200 wanted at 50 is an exact quarter: libjpeg's own, unchanged.
    quarter = tf.io.decode_jpeg(encoded(pixels), ratio=4)[25:75, 10:60]
    assert np.abs(decoded(pixels, 50, [100, 40, 200, 200]) - quarter).max() <= 1


def distance_from_lanczos(height, width, size):
    """Return the root mean square difference from Pillow's resizing of all pixels."""
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(9 * x / width * 6) + 60 * np.cos(7 * y / height * 6)
    pixels = np.repeat(waves[..., np.newaxis], 3, 2).astype(np.uint8)
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
    return np.sqrt(np.mean((decoded(pixels, size) - np.asarray(resized, int)) ** 2))


@pytest.mark.parametrize(("edge", "size"), [(256, 128), (384, 70), (512, 64)])
@pytest.mark.parametrize("more", [1, 3, 7])
def test_decode_of_a_reduced_image_does_not_shift_it(edge, size, more):
    # As close as for an edge that the reduction divides.
    expected = distance_from_lanczos(edge, edge + 8, size)
    assert distance_from_lanczos(edge + more, edge + 8, size) < 1.2 * expected + 0.2
    assert distance_from_lanczos(edge, edge + 8 + more, size) < 1.2 * expected + 0.2


@pytest.mark.parametrize("size", [8, 30, 60])
def test_decode_stops_below_the_window(size):
    whole = encoded(gradient(400, 400)).numpy()
    cut = whole[: len(whole) // 2]

    def once(content, window):
        shape = tf.constant([400, 400, 3])
        return decode(content, shape, ImageFormat(size, 3), lambda shape: tf.constant(window))

    upper, all_ = [20, 40, 60, 60], [0, 0, 400, 400]
    assert np.array_equal(once(cut, upper), once(whole, upper))
    with pytest.raises(tf.errors.InvalidArgumentError):
        once(cut, all_)


def test_resize_rounds_to_nearest():
    image = tf.constant([[[0], [1]], [[1], [1]]], tf.uint8)
    assert resize(image, (1, 1)).numpy().item() == 1
    flat = tf.fill([9, 5, 3], tf.constant(200, tf.uint8))
    assert np.array_equal(resize(flat, (4, 4)), np.full((4, 4, 3), 200))


@pytest.mark.parametrize("seed", range(4))
def test_tensorflow_decodes_whatever_conversion_keeps(seed):
    generator = np.random.default_rng(seed)
    contents = [*CONFORMANT.values(), *UNUSUAL_SAMPLING.values()]
    kept = 0
    for number in range(200):
        damaged = bytearray(contents[number % len(contents)])
        for at in generator.integers(2, len(damaged), generator.integers(1, 4)):
            damaged[at] = generator.choice(
                [0, 0xC4, 0xC7, 0xD0, 0xDA, 0xFF, generator.integers(256)]
            )
        try:
            jpeg, height, width = convert_image(bytes(damaged), ImageOptions())
        except UnusableImageError:
            continue
        kept += jpeg in bytes(damaged)
        assert tf.io.extract_jpeg_shape(jpeg).numpy().tolist() == [height, width, 3]
        for ratio in REDUCTIONS:
            tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio)
    assert 20 < kept < 190
