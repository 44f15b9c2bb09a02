import shutil

import numpy as np
import pytest
from PIL import Image

from library.dataset.conversion import Source
from library.dataset.duplicates import exact_hash, find_groups, perceptual_hash, signature
from library.dataset.images import ImageOptions
from library.describing.dataset_summary import (
    duplicate_lists,
    format_summary,
    imbalance,
    inspect_splits,
)
from library.errors import DataError
from tests.conftest import COLORS, write_colors


def inspected(folder, *splits):
    sources = {split: Source(str(folder / split), split) for split in splits}
    return inspect_splits(sources, ImageOptions(), 1)


@pytest.fixture
def folder(tmp_path):
    write_colors(tmp_path / "train", 6, size=20)
    write_colors(tmp_path / "test", 3, size=30, seed=1)
    shutil.copy(tmp_path / "train" / "red" / "001.png", tmp_path / "test" / "red" / "leak.png")
    shutil.copy(tmp_path / "train" / "red" / "002.png", tmp_path / "train" / "blue" / "wrong.png")
    (tmp_path / "train" / "red" / "x.png").write_bytes(b"rubbish")
    return tmp_path


def test_inspect_counts_classes_sizes_and_unusable_files(folder):
    with inspected(folder, "train", "test") as found:
        assert found.classes == ("blue", "green", "red")
        assert found.counts["train"] == {"blue": 7, "green": 6, "red": 6}
        assert found.counts["test"] == {"blue": 3, "green": 3, "red": 4}
        assert [each[:2] for each in found.unusable] == [("train", "red/x.png")]
        assert set(found.facts[:, 2]) == {20, 30}


def test_inspect_finds_same_file_across_splits_and_labels(folder):
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


def test_inspect_takes_compressed_tars_and_refuses_empty_sources(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no images"), inspected(tmp_path, "train"):
        pass
    write_colors(tmp_path / "images", 1)
    shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path / "images")
    with inspected(tmp_path, "a.tar.gz") as found:
        assert sum(found.counts["a.tar.gz"].values()) == len(COLORS)


def test_summary_lists_all_findings(folder):
    with inspected(folder, "train", "test") as found:
        lines = format_summary(found).splitlines()
    assert lines[0].split() == ["train", "test"]
    assert ["red", "6", "4"] in [line.split() for line in lines]
    assert any(line.split()[:4] == ["up", "to", "32", "px"] for line in lines)
    assert "same file in several splits (leak): 1" in lines
    assert "same file with different labels: 1" in lines
    assert any(line.startswith("  train/red/x.png ") for line in lines)


def test_duplicates_are_listed_under_worst_heading(folder):
    with inspected(folder, "train", "test") as found:
        lists = duplicate_lists(found)
    assert [len(groups) for _, groups in lists[:3]] == [1, 1, 0]


def test_imbalance_names_largest_and_smallest():
    assert imbalance({"a": 30, "b": 10}) == "'a' is 3.0 times as large as 'b'"
    assert imbalance({"a": 3, "b": 3}) == "all classes are equally large"
    assert imbalance({"a": 3, "b": 0}) == "'b' has no images"


def test_summary_escapes_names(tmp_path, folder):
    (tmp_path / "train" / "red" / "a\nb.png").write_bytes(b"rubbish")
    with inspected(folder, "train") as found:
        assert r"  train/red/a\nb.png " in format_summary(found)


def blobs(seed, size=64):
    small = np.random.default_rng(seed).integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def groups(*images):
    exact = np.array([exact_hash(each.tobytes()) for each in images], np.uint64)
    perceptual = np.array([perceptual_hash(each) for each in images], np.uint64)
    signatures = np.array([np.frombuffer(signature(each), np.int8) for each in images])
    equal, alike = find_groups(exact, perceptual, signatures)
    return [sorted(each.tolist()) for each in equal], [sorted(each.tolist()) for each in alike]


def test_equal_files_form_group():
    assert groups(blobs(0), blobs(1), blobs(0), blobs(2), blobs(0)) == ([[0, 2, 4]], [])


@pytest.mark.parametrize("size", [48, 60, 200])
def test_resized_copy_is_similar(size):
    for seed in range(20):
        assert groups(blobs(seed), blobs(99), blobs(seed, size)) == ([], [[0, 2]])


def test_brighter_copy_is_similar():
    image = blobs(3) // 2 + 20
    assert groups(image, image + 10, blobs(4)) == ([], [[0, 1]])


def test_different_images_are_not_similar():
    assert groups(*(blobs(seed) for seed in range(300))) == ([], [])


def test_similar_group_includes_equal_files():
    assert groups(blobs(0), blobs(0), blobs(0, 60)) == ([[0, 1]], [[0, 1, 2]])


def test_groups_of_blank_images_and_of_none():
    plain = [np.full((9, 9), level, np.uint8) for level in range(100)]
    equal, alike = groups(*plain)
    assert (equal, alike) == ([], [list(range(100))])
    nothing = find_groups(
        np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64), np.zeros((0, 64), np.int8)
    )
    assert nothing == ([], [])
