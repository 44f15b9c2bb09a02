import pytest

from library.dataset.encode_record import Task
from library.dataset.shards import ShardWriter, WorkFolder, work_folder
from library.files import sha256_of


def write(work, count, per_shard=2):
    """Write records until the listing's first `count` files are dealt with; every fifth is bad."""
    with ShardWriter(work, lambda files, size, position: files >= per_shard) as writer:
        for number in range(work.position, count):
            if number % 5 == 4:
                writer.leave_out(Task((), 0, "cat", f"cat/{number}"), "is bad")
            else:
                writer.write(b"record %d" % number, "cat")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_has_its_final_name_before_all_is_done(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 7)
    assert names(tmp_path) == [".train.converting"]
    shards = work.publish()
    assert [shard.examples for shard in shards] == [2, 2, 1, 1]
    assert shards[0].file == "train_00000-of-00004.tfrecord"
    assert all(sha256_of(tmp_path / shard.file) == shard.sha256 for shard in shards)
    assert work.left_out == [{"number": 4, "file": "cat/4", "label": "cat", "reason": "is bad"}]
    work.remove()
    assert names(tmp_path) == sorted(shard.file for shard in shards)


def test_finished_shards_are_kept_for_the_same_plan_only(tmp_path):
    write(WorkFolder(tmp_path, "train", "plan"), 4)
    again = WorkFolder(tmp_path, "train", "plan")
    assert again.position == 4
    write(again, 7)
    assert len(again.publish()) == 4
    assert WorkFolder(tmp_path, "train", "other").position == 0


def test_a_shard_under_way_is_dropped(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    writer = ShardWriter(work, lambda files, size, position: files >= 2)
    for _ in range(3):
        writer.write(b"record", "cat")
    writer.__exit__(InterruptedError, InterruptedError(), None)
    assert names(work_folder(tmp_path, "train")) == ["00000.json", "00000.tfrecord", "plan"]


def test_a_shard_that_is_gone_or_cut_is_written_again_with_those_after_it(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 8)
    work.shard_path(1).write_bytes(b"cut")
    assert WorkFolder(tmp_path, "train", "plan").position == 2


@pytest.mark.parametrize("renamed", range(5))
def test_killed_between_the_renamings_it_goes_on(tmp_path, renamed):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 8)
    for number in range(min(renamed, 4)):
        work.shard_path(number).replace(tmp_path / f"train_{number:05d}-of-00004.tfrecord")
    again = WorkFolder(tmp_path, "train", "plan")
    assert again.position == 8
    shards = again.publish()
    assert all(sha256_of(tmp_path / shard.file) == shard.sha256 for shard in shards)


def test_numbers_go_on_after_those_of_a_base(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan", first_number=8)
    write(work, 4)
    assert [shard.file for shard in work.publish()] == [
        "train_00008-of-00010.tfrecord",
        "train_00009-of-00010.tfrecord",
    ]
