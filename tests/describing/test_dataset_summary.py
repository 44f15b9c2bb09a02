import shutil

import pytest

from library.dataset.images import ImageOptions
from library.dataset.sources.find import find_files
from library.describing.dataset_summary import inspect_splits
from library.errors import DataError
from tests.conftest import write_colors


def inspected(folder, *splits):
    finds = {split: lambda split=split: find_files(folder / split) for split in splits}
    return inspect_splits(finds, ImageOptions(), 1)


@pytest.fixture
def folder(tmp_path):
    write_colors(tmp_path / "train", 6, size=20)
    write_colors(tmp_path / "test", 3, size=30, seed=1)
    shutil.copy(tmp_path / "train" / "red" / "001.png", tmp_path / "test" / "red" / "leak.png")
    shutil.copy(tmp_path / "train" / "red" / "002.png", tmp_path / "train" / "blue" / "wrong.png")
    (tmp_path / "train" / "red" / "x.png").write_bytes(b"rubbish")
    return tmp_path


def test_counts_sizes_and_what_is_unusable(folder):
    with inspected(folder, "train", "test") as found:
        assert found.classes == ("blue", "green", "red")
        assert found.counts["train"] == {"blue": 7, "green": 6, "red": 6}
        assert found.counts["test"] == {"blue": 3, "green": 3, "red": 4}
        assert [each[:2] for each in found.unusable] == [("train", "red/x.png")]
        assert set(found.facts[:, 2]) == {20, 30}


def test_the_same_file_elsewhere_is_found_with_its_name(folder):
    with inspected(folder, "train", "test") as found:
        names = {
            tuple(sorted(f"{found.split(n)}/{found.file(n).name}" for n in group)): group
            for group in found.equal
        }
        leak = ("test/red/leak.png", "train/red/001.png")
        wrong = ("train/blue/wrong.png", "train/red/002.png")
        assert sorted(names) == [leak, wrong]
        assert found.crosses_splits(names[leak])
        assert not found.crosses_splits(names[wrong])
        assert found.labels_disagree(names[wrong])
        assert not found.labels_disagree(names[leak])


def test_nothing_to_inspect_is_one_line(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no images to inspect"), inspected(tmp_path, "train"):
        pass
    write_colors(tmp_path / "images", 1)
    shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path / "images")
    with pytest.raises(DataError, match="compressed tar can't"), inspected(tmp_path, "a.tar.gz"):
        pass
