import pytest

from library.dataset import shards
from library.dataset.manifest import manifest_path, read_manifest
from library.dataset.shards import WorkFolder, publish, rejected_path
from tests.dataset.test_shards import names, write


def published(folder, count, plan="plan", per_shard=2, base=None):
    work = WorkFolder(folder, "train", plan, len(base.shards) if base else 0)
    write(work, count, per_shard)
    good = sum(shard.examples for shard in work.finished)
    return publish(work, ("cat",), {"cat": good}, {"plan": plan}, base)


def test_a_manifest_lists_what_there_is(tmp_path):
    manifest = published(tmp_path, 7)
    assert read_manifest(tmp_path, "train") == manifest
    assert names(tmp_path) == sorted(
        ["train.manifest.json", "train.rejected.csv", *(shard.file for shard in manifest.shards)]
    )
    assert rejected_path(tmp_path, "train").read_text() == "file,label,reason\ncat/4,cat,is bad\n"


def test_what_is_replaced_is_removed(tmp_path):
    published(tmp_path, 9)
    manifest = published(tmp_path, 3, plan="other", per_shard=3)
    assert names(tmp_path) == ["train.manifest.json", manifest.shards[0].file]


def test_an_appended_split_lists_both(tmp_path):
    base = published(tmp_path, 7)
    both = published(tmp_path, 6, "more", base=base)
    assert both.shards[:4] == base.shards
    assert both.class_counts == (11,)
    assert both.rejected_count == 2
    assert len(rejected_path(tmp_path, "train").read_text().splitlines()) == 3


@pytest.mark.parametrize("appending", [False, True])
def test_stopped_before_the_manifest_there_is_an_old_one_only_if_it_is_true(
    tmp_path, monkeypatch, appending
):
    base = published(tmp_path, 7)

    def stop(_):
        raise InterruptedError

    monkeypatch.setattr(shards, "write_manifest", stop)
    with pytest.raises(InterruptedError):
        published(tmp_path, 6, "more", base=base if appending else None)
    assert manifest_path(tmp_path, "train").exists() == appending
    if appending:
        assert read_manifest(tmp_path, "train") == base


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / ".train.manifest.json.1.ab.partial").write_text("half")
    (tmp_path / ".test.manifest.json.1.ab.partial").write_text("another's")
    published(tmp_path, 3)
    assert [name for name in names(tmp_path) if name.endswith(".partial")] == [
        ".test.manifest.json.1.ab.partial"
    ]
