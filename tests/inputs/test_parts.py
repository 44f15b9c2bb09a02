import itertools

import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.batching import WHOLE_BATCH, WorkerSlice


def positions(part, count, batch_size):
    numbered = tf.data.Dataset.range(count).enumerate()
    return [int(position) for position, _ in part.select(numbered, batch_size)]


def test_parts_divide_each_batch_and_lose_nothing():
    parts = [positions(part, 22, 8) for part in WorkerSlice(0, 4).siblings()]
    assert parts[1] == [2, 3, 10, 11, 18, 19]
    assert sorted(itertools.chain(*parts)) == list(range(22))
    assert positions(WHOLE_BATCH, 22, 8) == list(range(22))


def test_a_part_that_ran_out_is_filled_with_empty_batches():
    batches = tf.data.Dataset.range(4).map(lambda each: (each, tf.zeros([3]))).batch(2)
    filled = list(WorkerSlice(1, 2).fill(batches, 4))
    assert [len(number) for number, _ in filled] == [2, 2, 0, 0]
    assert filled[-1][1].shape == (0, 3)
    assert len(list(WHOLE_BATCH.fill(batches, 4))) == 2


def test_one_worker_alone_has_all_shards():
    assert WorkerSlice(0, 2, by_file=True).has_own_shards
    assert not WorkerSlice(0, 1, by_file=True).has_own_shards
    assert not WorkerSlice(0, 2).has_own_shards


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(SettingsError, match="batch_size 10 can't be divided among 4 workers: 8"):
        WorkerSlice(0, 4).size(10)


def test_pairs_are_not_torn_apart():
    text = (
        "mixup and cutmix mix pairs of images: train_batch_size 12 gives each of 4 workers 3, "
        "an odd number; 16 would be even"
    )
    with pytest.raises(SettingsError, match=text):
        WorkerSlice(0, 4).check_pairs(12)
    WorkerSlice(0, 4).check_pairs(16)
    # One worker has the whole batch, and by file each has batches of its own.
    WHOLE_BATCH.check_pairs(7)
    WorkerSlice(0, 4, by_file=True).check_pairs(12)
