import tensorflow as tf

from library.inputs.batching import prefetch, without_autotune
from library.inputs.examples import DEFAULT_OPTIONS


def test_a_data_set_is_not_tuned_and_nothing_made_of_it_is():
    dataset = without_autotune(tf.data.Dataset.range(4))
    for each in (dataset, dataset.map(lambda value: value + 1, 2).batch(2).prefetch(1)):
        assert each.options().autotune.enabled is False
    assert tf.data.Dataset.range(4).options().autotune.enabled is not False


def test_options_of_batches_that_are_kept_ready():
    options = prefetch(tf.data.Dataset.range(4), DEFAULT_OPTIONS).options()
    assert options.autotune.enabled is False
    assert options.deterministic is True
    assert options.experimental_warm_start is True
