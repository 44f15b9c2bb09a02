import tensorflow as tf

from library.inputs.batching import (
    WHOLE_BATCH,
    WorkerSlice,
    make_batches,
    prefetch,
)
from library.inputs.examples import PipelineOptions, ShardSource, count_batches, worker_examples

SHARDS = ShardSource(("a", "b", "c"), (10, 2, 5), (9, 8))


def test_batches_are_counted_with_the_partial_last_one():
    assert count_batches(SHARDS, 17, 4, WHOLE_BATCH) == 5
    assert count_batches(SHARDS, 16, 4, WHOLE_BATCH) == 4
    # By file: the first of two workers has 15 examples, at two a batch.
    assert count_batches(SHARDS, 17, 4, WorkerSlice(1, 2, by_file=True)) == 8


def test_by_file_a_worker_has_its_own_shards():
    assert worker_examples(SHARDS, WorkerSlice(0, 2, by_file=True)).paths == ("a", "c")
    assert worker_examples(SHARDS, WorkerSlice(1, 2, by_file=True)).count == 2
    assert worker_examples(SHARDS, WorkerSlice(1, 2)) is SHARDS


def test_what_is_skipped_is_never_prepared():
    prepared = []

    def prepare(position, key):
        return tf.numpy_function(lambda each: prepared.append(each) or each, [key], tf.int64)

    options = PipelineOptions(prefetch_examples=2, num_parallel_calls=1)
    batches = make_batches(tf.data.Dataset.range(20), prepare, 4, 3, 5, WHOLE_BATCH, options)
    given = [each.numpy().tolist() for each in prefetch(batches, options)]
    assert given == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert prepared == list(range(12, 20))
