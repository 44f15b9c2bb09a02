import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.balance import class_weights, oversample, oversampled_count
from project.objective import Objective

CLASSES, COUNTS = ("cat", "dog", "owl"), (10, 30, 20)


def test_class_weights_auto_gives_equal_totals():
    weights = class_weights(["auto"], CLASSES, COUNTS)
    assert np.allclose(np.multiply(weights, COUNTS), 20)
    assert class_weights(["auto"], CLASSES, (4, 0, 4))[1] == 1
    assert class_weights([], CLASSES, COUNTS) is None


def test_class_weights_by_name():
    assert class_weights(["owl=2.5", "cat=0"], CLASSES, COUNTS) == (0, 1, 2.5)


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("dig=2", r"class_weight.*'dig=2'.*'dog'"),
        ("dog", r"class_weight.*'dog'.*'dog'"),
        ("dog=-1", r"class_weight.*'dog=-1'.* 0"),
        ("dog=x", r"class_weight.*'dog=x'.* 0"),
        ("dog=nan", r"class_weight.*'dog=nan'.* 0"),
    ],
)
def test_class_weights_refuses_bad_words(word, match):
    with pytest.raises(SettingsError, match=match):
        class_weights([word], CLASSES, COUNTS)


@pytest.mark.parametrize("counts", [(3, 700, 41), (5, 0, 5), (1,), (600, 300)])
def test_oversample_makes_classes_equally_large(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(range(len(counts)), counts))
    keys = tf.data.Dataset.range(len(labels))
    given = list(oversample(keys, lambda each: tf.gather(labels, each), counts).as_numpy_iterator())
    assert len(given) == oversampled_count(counts)
    largest = max(counts)
    for label, count in enumerate(counts):
        own = [each for each in given if labels[each] == label]
        assert len(own) == (largest if count else 0)
        repeats = np.unique(own, return_counts=True)[1]
        # None is missing, and none comes much more often than another.
        assert len(repeats) == count
        assert not count or repeats.max() - repeats.min() <= 1


def test_class_weights_affect_training_losses_only():
    scores, labels = tf.constant([[1.0, 0, 0], [0, 2, 0]]), tf.constant([0, 2], tf.int64)
    plain, weighted = Objective(), Objective(class_weights=(2.0, 1.0, 0.5))
    losses = plain.training_losses(labels, scores)
    assert np.allclose(weighted.training_losses(labels, scores), losses * [2.0, 0.5])
    assert np.array_equal(
        plain.metrics(labels, scores)["loss"], weighted.metrics(labels, scores)["loss"]
    )


def test_objective_takes_soft_targets():
    scores, hard = tf.constant([[1.0, 0, 0], [0, 2, 0]]), tf.constant([0, 2], tf.int64)
    soft = tf.one_hot(hard, 3)
    for objective in (Objective(), Objective(label_smoothing=0.2, class_weights=(2.0, 1.0, 0.5))):
        assert np.allclose(
            objective.training_losses(hard, scores), objective.training_losses(soft, scores)
        )
        for name, values in objective.metrics(hard, scores).items():
            assert np.allclose(values, objective.metrics(soft, scores)[name])
    half = tf.constant([[0.5, 0.5, 0.0]])
    expected = (
        Objective().training_losses([0], scores[:1]) + Objective().training_losses([1], scores[:1])
    ) / 2
    assert np.allclose(Objective().training_losses(half, scores[:1]), expected)
