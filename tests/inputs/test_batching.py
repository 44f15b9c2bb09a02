import itertools

import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.batching import count_batches, make_batches, prefetch, worker_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import (
    DEFAULT_OPTIONS,
    PipelineOptions,
    ShardSource,
    without_autotune,
)
from library.inputs.worker_slice import WHOLE_BATCH, WorkerSlice
from project.inputs import EvaluationPipeline

SHARDS = ShardSource(("a", "b", "c"), (10, 2, 5), (9, 8))


def make_inputs(batch_size, worker_slice=WHOLE_BATCH, source=SHARDS, options=DEFAULT_OPTIONS):
    return EvaluationPipeline(source, ImageFormat(8, 3), batch_size, worker_slice, options)


@pytest.mark.parametrize(
    ("batch_size", "worker_slice", "count"),
    [
        (4, WHOLE_BATCH, 5),
        (17, WHOLE_BATCH, 1),
        # The first of two workers has 15 examples, at two per batch.
        (4, WorkerSlice(1, 2, by_file=True), 8),
    ],
)
def test_count_batches(batch_size, worker_slice, count):
    assert count_batches(make_inputs(batch_size, worker_slice)) == count


def test_worker_examples_by_file():
    assert worker_examples(SHARDS, WorkerSlice(0, 2, by_file=True)).paths == ("a", "c")
    assert worker_examples(SHARDS, WorkerSlice(1, 2, by_file=True)).count == 2
    assert worker_examples(SHARDS, WorkerSlice(1, 2)) is SHARDS


def test_make_batches_prepares_nothing_that_it_skips():
    prepared = []

    def prepare(position, key):
        return tf.numpy_function(lambda each: prepared.append(each) or each, [key], tf.int64)

    options = PipelineOptions(prefetch_examples=2, num_parallel_calls=1)
    inputs = make_inputs(4, source=ShardSource(("a",), (20,), (20,)), options=options)
    batches = make_batches(inputs, tf.data.Dataset.range(20), prepare, start_batch=3)
    given = [each.numpy().tolist() for each in prefetch(batches, options)]
    assert given == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert prepared == list(range(12, 20))


def test_without_autotune_holds_for_what_is_made_from_the_dataset():
    dataset = without_autotune(tf.data.Dataset.range(4))
    for each in (dataset, dataset.map(lambda value: value + 1, 2).batch(2).prefetch(1)):
        assert each.options().autotune.enabled is False
    assert tf.data.Dataset.range(4).options().autotune.enabled is not False


def test_prefetch_sets_options():
    options = prefetch(tf.data.Dataset.range(4), DEFAULT_OPTIONS).options()
    assert options.autotune.enabled is False
    assert options.deterministic is True
    assert options.experimental_warm_start is True


def positions(worker_slice, count, batch_size):
    numbered = tf.data.Dataset.range(count).enumerate()
    return [int(position) for position, _ in worker_slice.select(numbered, batch_size)]


def test_worker_slices_partition_each_batch():
    slices = [positions(each, 22, 8) for each in WorkerSlice(0, 4).siblings()]
    assert slices[1] == [2, 3, 10, 11, 18, 19]
    assert sorted(itertools.chain(*slices)) == list(range(22))
    assert positions(WHOLE_BATCH, 22, 8) == list(range(22))


def test_worker_slice_fills_up_with_empty_batches():
    batches = tf.data.Dataset.range(4).map(lambda each: (each, tf.zeros([3]))).batch(2)
    filled = list(WorkerSlice(1, 2).fill(batches, 4))
    assert [len(number) for number, _ in filled] == [2, 2, 0, 0]
    assert filled[-1][1].shape == (0, 3)
    assert len(list(WHOLE_BATCH.fill(batches, 4))) == 2


def test_worker_slice_has_own_shards():
    assert WorkerSlice(0, 2, by_file=True).has_own_shards
    assert not WorkerSlice(0, 1, by_file=True).has_own_shards
    assert not WorkerSlice(0, 2).has_own_shards


def test_worker_slice_refuses_an_indivisible_batch():
    with pytest.raises(SettingsError, match=r"batch_size 10 .* 4 workers.* 8 "):
        WorkerSlice(0, 4).size(10)


def test_worker_slice_keeps_pairs_together():
    with pytest.raises(SettingsError, match=r"train_batch_size 12 .*\(3\).* 16 "):
        WorkerSlice(0, 4).check_pairs(12)
    WorkerSlice(0, 4).check_pairs(16)
    # A single worker has the whole batch; by file, each has batches of its own.
    WHOLE_BATCH.check_pairs(7)
    WorkerSlice(0, 4, by_file=True).check_pairs(12)
