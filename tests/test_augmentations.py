import numpy as np
import pytest
import tensorflow as tf

from library.choices import ChoiceError
from library.errors import SettingsError
from project.augmentations import AUGMENTATIONS, CROPS, augment, choose_augmentations

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
SEEDS = [tf.constant([7, number], tf.int64) for number in range(40)]


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_eagerly_and_inside_a_pipeline_the_same(name, channels):
    _, functions = choose_augmentations([name])
    image = IMAGE[..., :channels]
    eager = [augment(tf.constant(image), functions, seed).numpy() for seed in SEEDS]
    data = tf.data.Dataset.from_tensor_slices(tf.stack(SEEDS))
    inside = list(data.map(lambda seed: augment(image, functions, seed)).as_numpy_iterator())
    assert np.array_equal(eager, inside)
    assert inside[0].dtype == np.uint8
    assert inside[0].shape == image.shape
    assert len({each.tobytes() for each in eager}) > 1, "nothing is random here"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_strength_0_is_the_identity(name):
    _, functions = choose_augmentations([f"{name}=0"])
    for seed in SEEDS:
        assert np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE)


def windows(strength, shape):
    crop, _ = choose_augmentations([f"distorted_crop={strength}"])
    return np.array([crop(tf.constant(shape), seed) for seed in SEEDS])


def test_a_crop_of_strength_0_is_the_whole_image():
    assert np.array_equal(windows(0, [12, 10, 3]), [[0, 0, 12, 10]] * len(SEEDS))


def test_crops_lie_inside_and_keep_half_the_area():
    shape = [400, 300, 3]
    y, x, height, width = windows(1, shape).T
    assert (y >= 0).all()
    assert (x >= 0).all()
    assert (y + height <= 400).all()
    assert (x + width <= 300).all()
    assert (height * width >= 0.49 * 400 * 300).all()
    assert len(set(zip(y, x, strict=True))) > len(SEEDS) // 2


def test_a_flip_mirrors_about_half_of_the_images():
    _, functions = choose_augmentations(["flip"])
    flipped = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE[:, ::-1])
        for seed in SEEDS
    ]
    assert 10 < sum(flipped) < 30


def test_a_shift_is_a_window_of_the_mirrored_border():
    _, functions = choose_augmentations(["pad_and_crop=2"])
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), "symmetric")
    possible = {padded[y : y + 12, x : x + 10].tobytes() for y in range(5) for x in range(5)}
    seen = {augment(tf.constant(IMAGE), functions, seed).numpy().tobytes() for seed in SEEDS}
    assert seen <= possible
    assert len(seen) > 10


def test_brightness_adds_one_number_within_its_range():
    _, functions = choose_augmentations(["brightness=0.2"])
    grey = tf.fill([4, 4, 1], tf.constant(128, tf.uint8))
    for seed in SEEDS:
        pixels = augment(grey, functions, seed).numpy().astype(int)
        assert pixels.min() == pixels.max()
        assert abs(pixels[0, 0, 0] - 128) <= 51


def test_two_augmentations_are_independent():
    _, functions = choose_augmentations(["flip", "flip"])
    unchanged = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE) for seed in SEEDS
    ]
    # Were they tied, both would flip, or neither: always unchanged.
    assert 0 < sum(unchanged) < len(SEEDS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["flipp"], "unknown augmentation 'flipp'; did you mean 'flip'?"),
        (["flip=2"], "augmentations: 'flip=2' wants a strength from 0 to 1"),
        (["flip=-1"], "augmentations: 'flip=-1' wants a strength from 0 to 1"),
        (["flip=x"], "augmentations: 'flip=x' wants a strength from 0 to 1"),
        (["flip=nan"], "augmentations: 'flip=nan' wants a strength from 0 to 1"),
        (["distorted_crop"] * 2, "augmentations: at most one of distorted_crop"),
    ],
)
def test_bad_words_are_refused(words, text):
    with pytest.raises((SettingsError, ChoiceError)) as caught:
        choose_augmentations(words)
    assert str(caught.value).startswith(text)


def test_the_two_kinds_share_no_name():
    assert not CROPS.keys() & AUGMENTATIONS.keys()
