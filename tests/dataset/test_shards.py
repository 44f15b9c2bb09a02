import pytest

from library.dataset import shards
from library.dataset.manifest import Manifest, manifest_path, read_manifest
from library.dataset.shards import (
    RejectedFile,
    ShardWriter,
    WorkFolder,
    publish,
    rejected_path,
    work_folder_path,
)
from library.files import sha256_of


def write(work, count, per_shard=2):
    """Write records of the index's first `count` files; every fifth file is rejected."""
    with ShardWriter(work, lambda shard: shard.end - shard.first >= per_shard) as writer:
        for number in range(work.position, count):
            if number % 5 == 4:
                writer.reject(f"cat/{number}", "cat", "is bad")
            else:
                writer.write(b"record %d" % number, "cat")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def publish_records(folder, count, plan="plan", per_shard=2):
    work = WorkFolder(folder, "train", plan)
    write(work, count, per_shard)
    return publish(work, Manifest(folder, "train", ("cat",), (count - count // 5,), ()))


def test_work_folder_publishes_final_names_at_the_end(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 7)
    assert names(tmp_path) == [".train.converting"]
    published = work.publish()
    assert [shard.examples for shard in published] == [2, 2, 1, 1]
    assert published[0].file == "train_00000-of-00004.tfrecord"
    assert all(sha256_of(tmp_path / shard.file) == shard.sha256 for shard in published)
    assert work.rejected == [RejectedFile(4, "cat/4", "cat", "is bad")]
    work.remove()
    assert names(tmp_path) == sorted(shard.file for shard in published)


def test_work_folder_resumes_same_plan_only(tmp_path):
    write(WorkFolder(tmp_path, "train", "plan"), 6)
    again = WorkFolder(tmp_path, "train", "plan")
    assert again.position == 6
    assert again.rejected == [RejectedFile(4, "cat/4", "cat", "is bad")]
    write(again, 7)
    assert len(again.publish()) == 4
    assert WorkFolder(tmp_path, "train", "other").position == 0


def test_work_folder_rewrites_from_first_damaged_shard(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 8)
    work.shard_path(1).write_bytes(b"cut")
    assert WorkFolder(tmp_path, "train", "plan").position == 2


@pytest.mark.parametrize("renamed", range(5))
def test_work_folder_resumes_between_renames(tmp_path, renamed):
    work = WorkFolder(tmp_path, "train", "plan")
    write(work, 8)
    for number in range(min(renamed, 4)):
        work.shard_path(number).replace(tmp_path / f"train_{number:05d}-of-00004.tfrecord")
    again = WorkFolder(tmp_path, "train", "plan")
    assert again.position == 8
    assert all(sha256_of(tmp_path / shard.file) == shard.sha256 for shard in again.publish())


def test_writer_drops_unfinished_shard_on_error(tmp_path):
    work = WorkFolder(tmp_path, "train", "plan")
    writer = ShardWriter(work, lambda shard: shard.end - shard.first >= 2)
    for _ in range(3):
        writer.write(b"record", "cat")
    writer.__exit__(InterruptedError, InterruptedError(), None)
    assert names(work_folder_path(tmp_path, "train")) == [
        "00000.shard.json",
        "00000.tfrecord",
        "plan",
    ]


def test_publish_lists_shards_and_rejected_files(tmp_path):
    manifest = publish_records(tmp_path, 7)
    assert read_manifest(tmp_path, "train") == manifest
    assert names(tmp_path) == sorted(
        ["train.manifest.json", "train.rejected.csv", *(shard.file for shard in manifest.shards)]
    )
    assert rejected_path(tmp_path, "train").read_text() == "file,label,reason\ncat/4,cat,is bad\n"


def test_publish_removes_replaced_files(tmp_path):
    publish_records(tmp_path, 9)
    manifest = publish_records(tmp_path, 3, plan="other", per_shard=3)
    assert names(tmp_path) == ["train.manifest.json", manifest.shards[0].file]


def test_publish_interrupted_leaves_no_false_manifest(tmp_path, monkeypatch):
    publish_records(tmp_path, 7)

    def stop(_):
        raise InterruptedError

    monkeypatch.setattr(shards, "write_manifest", stop)
    with pytest.raises(InterruptedError):
        publish_records(tmp_path, 6, "more")
    assert not manifest_path(tmp_path, "train").exists()


def test_publish_removes_own_partial_files(tmp_path):
    (tmp_path / ".train.manifest.json.1.ab.partial").write_text("half")
    (tmp_path / ".test.manifest.json.1.ab.partial").write_text("another's")
    publish_records(tmp_path, 3)
    assert [name for name in names(tmp_path) if name.endswith(".partial")] == [
        ".test.manifest.json.1.ab.partial"
    ]
