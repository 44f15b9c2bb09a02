import pytest

from library.dataset.manifest import Manifest, Shard, manifest_path, write_manifest
from library.dataset.splits import find_joined, find_training_manifest, order_classes
from library.errors import DataError


@pytest.fixture
def training(tmp_path):
    shard = Shard("train_00000-of-00001.tfrecord", 1, 1, "0" * 64)
    write_manifest(Manifest(tmp_path / "train", "train", ("cat", "dog"), (1, 0), (shard,)))
    return manifest_path(tmp_path / "train", "train")


def test_classes_are_sorted_by_code_point():
    assert order_classes({"b", "a", "Z", "é", "10", "9"}) == ("10", "9", "Z", "a", "b", "é")


def test_the_training_split_is_found_beside_or_in_the_same_folder(training, tmp_path):
    assert find_training_manifest(tmp_path / "test", "test") == training
    assert find_training_manifest(tmp_path / "train", "test") == training
    assert find_training_manifest(tmp_path / "train", "train") is None
    assert find_training_manifest(tmp_path / "elsewhere" / "test", "test") is None


def test_the_training_split_fixes_the_classes(training):
    assert order_classes({"dog"}, training) == ("cat", "dog")
    assert order_classes({"dog"}, training.parent) == ("cat", "dog")


def test_a_class_that_training_lacks_is_refused_by_name(training):
    with pytest.raises(DataError, match=r"the class 'cow' is not among the classes of .*cat, dog"):
        order_classes({"cat", "cow"}, training)
    with pytest.raises(DataError, match=r"the classes 'ant', 'cow' are not among"):
        order_classes({"cow", "ant"}, training)


def test_the_training_split_may_be_at_a_url(training):
    pytest.importorskip("fsspec")
    assert order_classes({"dog"}, f"file://{training}") == ("cat", "dog")
    with pytest.raises(DataError, match=r"there is no file://.*/test.manifest.json, or no bucket"):
        order_classes({"dog"}, f"file://{training.parent}/test.manifest.json")


def test_a_class_made_of_others_is_found():
    assert find_joined(("cat", "cat|dog", "dog")) == ("cat|dog", "|")
    assert find_joined(("a", "b", "b, a")) == ("b, a", ",")
    assert find_joined(("cat", "cat|cow", "dog", "hot dog", "|")) is None
