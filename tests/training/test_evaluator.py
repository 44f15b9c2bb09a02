import keras
import numpy as np
import pytest
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.training.evaluator import Evaluator
from project.objective import Objective


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))


@pytest.mark.parametrize("batch_size", [1, 4, 10, 16])
def test_each_example_counts_once_whatever_the_batches(network, batch_size):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (10, 4, 4, 1), np.uint8)
    labels = random.integers(0, 3, 10)
    batches = without_autotune(tf.data.Dataset.from_tensor_slices((images, labels))).batch(
        batch_size
    )
    evaluator = Evaluator(network, Objective())
    means, examples = evaluator.evaluate(batches)
    right = network(images.astype(np.float32)).numpy().argmax(1) == labels
    assert examples == 10
    assert means["accuracy"] == right.mean()
    assert evaluator.evaluate(batches) == (means, 10), "a second time must not add to the first"
    _, few = evaluator.evaluate(batches, max_steps=1)
    assert few == min(batch_size, 10)
