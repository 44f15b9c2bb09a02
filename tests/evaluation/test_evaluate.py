import keras
import numpy as np
import pytest

from library.dataset.splits import read_splits
from library.errors import DataError, DivergedError
from library.evaluation.evaluate import evaluate, read_images
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.training.evaluator import Evaluator
from project.inputs import EvaluationPipeline
from project.objective import Objective

FORMAT = ImageFormat(8, 3)


@pytest.fixture(scope="module")
def splits(colors):
    return read_splits(colors, "validation", "test")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    pixels = keras.Input(FORMAT.shape)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(3)(flat))


def inputs(split):
    return EvaluationPipeline(make_source(split), FORMAT, 4)


def test_means_are_those_of_training(splits, network):
    validation, test = (inputs(each) for each in splits)
    judgment = evaluate(network, splits[1].classes, test, Objective(), validation=validation)
    expected, images = Evaluator(network, Objective()).evaluate(test.batches())
    assert len(judgment.predictions) == images == 18
    assert judgment.measures["accuracy"] == expected["accuracy"]
    assert judgment.measures["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    # An untrained network is too sure of itself.
    assert judgment.measures["calibrated_loss"] < judgment.measures["loss"]


def test_the_worst_mistakes_are_wrong_and_come_worst_first(splits, network):
    test = inputs(splits[1])
    judgment = evaluate(network, splits[1].classes, test, Objective())
    assert "temperature" not in judgment.measures
    found, rows = judgment.predictions, judgment.worst_mistakes(5)
    assert len(rows) == 5
    assert (found.classes[rows] != found.labels[rows]).all()
    assert (np.diff(judgment.losses[rows]) <= 0).all()
    wrong = found.classes != found.labels
    assert judgment.losses[rows[0]] == judgment.losses[wrong].max()

    images = read_images(test, rows)
    assert images[0].shape == (8, 8, 3)
    scores = network(np.stack(images).astype(np.float32)).numpy()
    assert scores == pytest.approx(found.scores[rows], abs=1e-5)
    assert read_images(test, []) == []


def test_an_empty_split_is_an_error(splits, network):
    empty = inputs(splits[1])
    with pytest.raises(DataError, match="the split to evaluate on is empty"):
        evaluate(network, splits[1].classes, empty, Objective(), max_steps=0)


def test_a_network_that_had_diverged_is_told(splits):
    pixels = keras.Input(FORMAT.shape)
    scores = keras.layers.Dense(3, bias_initializer=keras.initializers.Constant(np.nan))
    network = keras.Model(pixels, scores(keras.layers.Flatten()(pixels)))
    with pytest.raises(DivergedError, match="scores of 18 of 18 images are no numbers"):
        evaluate(network, splits[1].classes, inputs(splits[1]), Objective())
