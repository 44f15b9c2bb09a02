import numpy as np
import pytest
import tensorflow as tf

from library.augmentation import policies

pytestmark = pytest.mark.slow

IMAGE = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 14, 3), np.uint8))
SEEDS = [tf.constant([5, each], tf.int64) for each in range(30)]
ALL = policies.SIGNED | policies.UNSIGNED


@pytest.mark.parametrize("name", ALL)
def test_an_operation_keeps_shape_and_type_and_does_nothing_at_amount_0(name):
    assert ALL[name](IMAGE, 0.3).shape == IMAGE.shape
    assert ALL[name](IMAGE, 0.3).dtype == tf.uint8
    if name not in ("autocontrast", "equalize", "invert"):
        assert np.array_equal(ALL[name](IMAGE, 0.0), IMAGE)


@pytest.mark.parametrize(
    "space",
    [policies.RAND_AUGMENT, policies.TRIVIAL_AUGMENT, policies.AUTO_AUGMENT, policies.AUG_MIX],
)
def test_spaces_name_operations_that_there_are(space):
    assert space.keys() <= ALL.keys()


def test_auto_augment_has_its_25_pairs_of_known_operations():
    assert len(policies.AUTO_AUGMENT_PAIRS) == 25
    for pair in policies.AUTO_AUGMENT_PAIRS:
        for name, tenths, ninths in pair:
            assert name in policies.AUTO_AUGMENT
            assert 0 <= tenths <= 10
            assert 0 <= ninths <= 9


@pytest.mark.parametrize(("strength", "other"), [(1, 30), (9, 20)])
def test_more_strength_changes_more(strength, other):
    def change(strength):
        results = [policies.rand_augment(IMAGE, strength, each) for each in SEEDS]
        return np.mean(np.abs(np.array(results).astype(int) - IMAGE.numpy()))

    assert change(strength) < change(other)


def test_aug_mix_stays_near_the_image():
    mixed = [policies.aug_mix(IMAGE, 3, seed).numpy().astype(int) for seed in SEEDS[:10]]
    changes = [np.corrcoef(each.ravel(), IMAGE.numpy().ravel())[0, 1] for each in mixed]
    assert min(changes) > 0.3
