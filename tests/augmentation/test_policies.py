import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from library.augmentation import pixelwise, policies

RANDOM = np.random.default_rng(0)
IMAGES = [
    RANDOM.integers(0, 256, (20, 16, 3), np.uint8),
    RANDOM.integers(90, 140, (20, 16, 3), np.uint8),
    np.full((6, 5, 3), 77, np.uint8),
]


@pytest.mark.parametrize("pixels", IMAGES, ids=["noise", "dull", "flat"])
@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (pixelwise.invert, ImageOps.invert),
        (lambda image: pixelwise.solarize(image, 100.0), lambda im: ImageOps.solarize(im, 156)),
        (lambda image: pixelwise.posterize(image, 3.0), lambda im: ImageOps.posterize(im, 5)),
        (pixelwise.equalize, ImageOps.equalize),
        (pixelwise.autocontrast, ImageOps.autocontrast),
        (
            lambda image: pixelwise.sharpen(image, 1.8),
            lambda im: ImageEnhance.Sharpness(im).enhance(1.8),
        ),
        (
            lambda image: pixelwise.sharpen(image, 0.2),
            lambda im: ImageEnhance.Sharpness(im).enhance(0.2),
        ),
    ],
    ids=["invert", "solarize", "posterize", "equalize", "autocontrast", "sharpen", "smooth"],
)
def test_pixelwise_operations_equal_pillow(ours, pillows, pixels):
    """The published policies were found with Pillow."""
    expected = np.asarray(pillows(Image.fromarray(pixels))).astype(int)
    given = ours(tf.constant(pixels))
    assert given.dtype == tf.uint8
    # Pillow truncates where we round.
    assert np.abs(given.numpy().astype(int) - expected).max() <= 2


IMAGE = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 14, 3), np.uint8))
SEEDS = [tf.constant([5, each], tf.int64) for each in range(30)]
ALL = policies.SIGNED | policies.UNSIGNED


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_policy_operation_is_the_identity_at_amount_0(name):
    assert ALL[name](IMAGE, 0.3).shape == IMAGE.shape
    assert ALL[name](IMAGE, 0.3).dtype == tf.uint8
    if name not in ("autocontrast", "equalize", "invert"):
        assert np.array_equal(ALL[name](IMAGE, 0.0), IMAGE)


@pytest.mark.parametrize(
    "space",
    [policies.RAND_AUGMENT, policies.TRIVIAL_AUGMENT, policies.AUTO_AUGMENT, policies.AUG_MIX],
)
def test_policy_spaces_name_known_operations(space):
    assert space.keys() <= ALL.keys()


def test_auto_augment_has_25_pairs_of_known_operations():
    assert len(policies.AUTO_AUGMENT_PAIRS) == 25
    for pair in policies.AUTO_AUGMENT_PAIRS:
        for name, tenths, ninths in pair:
            assert name in policies.AUTO_AUGMENT
            assert 0 <= tenths <= 10
            assert 0 <= ninths <= 9


@pytest.mark.slow
@pytest.mark.parametrize(("strength", "other"), [(1, 30), (9, 20)])
def test_rand_augment_changes_more_with_more_strength(strength, other):
    def change(strength):
        results = [policies.rand_augment(IMAGE, strength, each) for each in SEEDS]
        return np.mean(np.abs(np.array(results).astype(int) - IMAGE.numpy()))

    assert change(strength) < change(other)


@pytest.mark.slow
def test_aug_mix_stays_near_the_image():
    mixed = [policies.aug_mix(IMAGE, 3, seed).numpy().astype(int) for seed in SEEDS[:10]]
    changes = [np.corrcoef(each.ravel(), IMAGE.numpy().ravel())[0, 1] for each in mixed]
    assert min(changes) > 0.3
