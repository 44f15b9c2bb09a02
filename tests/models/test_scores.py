import keras
import numpy as np
import pytest
import tensorflow as tf

from library.models.scores import MULTI_LABEL, is_multi_label, to_probabilities

SCORES = np.array([[2.0, 0.0, -1.0], [90.0, -90.0, 0.0]], np.float32)


def test_softmax_sums_to_one_and_a_temperature_keeps_the_order():
    sure, unsure = (np.asarray(to_probabilities(SCORES, each)) for each in (1.0, 4.0))
    exponentials = np.exp(SCORES[0])
    assert sure[0] == pytest.approx(exponentials / exponentials.sum())
    assert sure.sum(1) == pytest.approx([1, 1])
    assert unsure[0].max() < sure[0].max()
    assert (unsure.argsort(1) == sure.argsort(1)).all()
    assert sure.dtype == np.float32


def test_of_several_labels_each_has_a_sigmoid_of_its_own():
    multi_label = np.asarray(to_probabilities(SCORES, 2.0, multi_label=True))
    assert multi_label[0] == pytest.approx(1 / (1 + np.exp(-SCORES[0] / 2)))


def test_a_graph_gives_what_numpy_arrays_do():
    in_graph = tf.function(to_probabilities)(tf.constant(SCORES))
    assert np.array_equal(in_graph, to_probabilities(SCORES))


def test_the_layer_that_scores_says_which_head_it_is():
    pixels = keras.Input((2,))
    for name, multi_label in (("scores", False), (MULTI_LABEL, True)):
        network = keras.Model(pixels, keras.layers.Dense(3, name=name)(pixels))
        assert is_multi_label(network) is multi_label
