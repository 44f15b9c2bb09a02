from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.training import adam


def apply(optimizer, variable, gradient):
    optimizer.apply([gradient], [variable])


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("options", [{"epsilon": 1e-3}, {"beta_1": 0.5, "global_clipnorm": 1.0}])
def test_one_op_matches_keras(name, options):
    random = np.random.default_rng(0)
    start = random.normal(size=(50, 3)).astype(np.float32)
    gradients = tf.constant(random.normal(size=(20, 50, 3)), tf.float32)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 20)
    results, ops = [], []
    for package in (adam, keras.optimizers):
        variable = keras.Variable(start)
        optimizer = getattr(package, name)(schedule, **options)
        optimizer.build([variable])

        update = tf.function(partial(apply, optimizer, variable), autograph=False)
        for gradient in gradients:
            update(gradient)
        graph = update.get_concrete_function(gradients[0]).graph
        ops.append({each.type for each in graph.get_operations()})
        results.append([np.array(each) for each in (variable, *optimizer.variables)])
    # If the second one has it, too, library/training/adam.py is needed no longer.
    assert ["ResourceApplyAdam" in each for each in ops] == [True, False]
    for ours, theirs in zip(*results, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_amsgrad_is_left_to_keras():
    variable = keras.Variable(np.ones(3, np.float32))
    optimizer = adam.Adam(0.1, amsgrad=True)
    optimizer.build([variable])
    optimizer.apply([tf.constant([1.0, -1.0, 2.0])], [variable])
    assert optimizer._velocity_hats[0].numpy().all()
