"""Conversion names an image that has different labels, in a split or across splits."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest

from library.dataset.label_conflicts import KEY_BYTES, find_conflicts, image_key, read_keys
from library.dataset.manifest import read_manifest
from library.dataset.shards import ShardWriter
from library.errors import UserError
from tests.conftest import write_colors
from tests.helpers.converting import OPTIONS, records, run

ARRAY = np.dtype([("content", "<u8"), ("labels", "<u4")])


@pytest.fixture
def images(tmp_path):
    """A folder of two splits of nine images each."""
    for seed, split in enumerate(("train", "test")):
        write_colors(tmp_path / "images" / split, 3, seed=seed)
    return tmp_path / "images"


def conflicts(caplog):
    found = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    caplog.clear()
    return found


def paths(folder):
    return sorted(path for path in folder.rglob("*.png"))


def arrays(*splits):
    return [np.array(each, ARRAY) for each in splits]


@pytest.mark.parametrize(
    ("splits", "count", "pair"),
    [
        ([[]], 0, []),
        ([[(7, 1), (7, 1), (8, 2)]], 0, []),
        ([[(9, 1), (7, 1), (8, 2), (7, 2)]], 1, [(0, 1), (0, 3)]),
        ([[(7, 1)], [(9, 3), (7, 1), (7, 2)]], 1, [(0, 0), (1, 2)]),
        ([[(5, 1), (9, 1)], [], [(9, 2), (5, 2)]], 2, [(0, 0), (2, 1)]),
        # Between other splits: reported when those were converted.
        ([[(5, 1)], [(7, 1)], [(7, 2)]], 0, []),
    ],
)
def test_find_conflicts_names_first_pair(splits, count, pair):
    assert find_conflicts(arrays(*splits)) == (count, pair)


def test_image_key_depends_on_every_byte_and_on_set_of_labels():
    content = bytes(range(256)) * 40
    keys = {image_key(content[:n] + b"x" + content[n + 1 :], "cat")[:8] for n in (0, 999, 9999)}
    assert len(keys | {image_key(content, "cat")[:8]}) == 4
    assert image_key(content, ("a", "b")) == image_key(content, ("b", "a"))
    assert image_key(content, ("a", "b"))[8:] != image_key(content, "ab")[8:]
    assert len(image_key(b"", ())) == KEY_BYTES


@pytest.mark.parametrize("kind", ["folder", "gztar"])
def test_conversion_names_same_image_in_two_classes(images, tmp_path, caplog, kind):
    source = images / "train"
    for number, file in enumerate(paths(source / "blue")[:2]):
        shutil.copy(file, source / "red" / f"copy{number}.png")
    shutil.copy(paths(source / "blue")[2], source / "blue" / "same_class.png")
    if kind != "folder":
        source = shutil.make_archive(str(tmp_path / "archive"), kind, source)
    manifest = run(source, tmp_path / "shards")
    (line,) = conflicts(caplog)
    assert "'blue'" in line
    assert "'red'" in line
    assert "train/red/copy" in line
    assert "1 image" in line
    expected = b"".join(image_key(each.encoded, each.text) for each in records(manifest))
    assert read_keys(manifest) == expected


@pytest.mark.parametrize("is_one_folder", [True, False])
def test_conversion_names_same_image_in_two_splits(images, tmp_path, caplog, is_one_folder):
    shutil.copy(paths(images / "train" / "blue")[0], images / "test" / "red" / "copy.png")
    shutil.copy(paths(images / "train" / "blue")[1], images / "test" / "blue" / "same_class.png")
    folders = [tmp_path / "shards" / ("" if is_one_folder else name) for name in ("train", "test")]
    run(images / "train", folders[0])
    assert conflicts(caplog) == []
    run(images / "test", folders[1], name="test")
    (line,) = conflicts(caplog)
    assert "test/red/copy.png is 'red'" in line
    assert "train/blue/" in line
    assert "more" not in line


def test_resumed_conversion_finds_conflicts_of_finished_shards(
    images, tmp_path, caplog, monkeypatch
):
    def failing(writer, *arguments, write=ShardWriter.write):
        if writer.position >= 8:
            raise OSError(28, "No space left on device")
        write(writer, *arguments)

    shutil.copy(paths(images / "train" / "blue")[0], images / "train" / "red" / "copy.png")
    options = replace(OPTIONS, num_shards=5)
    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "write", failing)
        with pytest.raises(UserError):
            run(images / "train", tmp_path / "shards", options)
    assert list(tmp_path.rglob("*.shard.json"))
    run(images / "train", tmp_path / "shards", options)
    assert len(conflicts(caplog)) == 1


@pytest.mark.parametrize("content", [None, b"", b"x" * 50])
def test_split_without_current_keys_is_not_compared(images, tmp_path, caplog, content):
    shutil.copy(paths(images / "train" / "blue")[0], images / "test" / "red" / "copy.png")
    run(images / "train", tmp_path)
    keys = tmp_path / ".train.keys"
    keys.unlink() if content is None else keys.write_bytes(content)
    assert read_keys(read_manifest(tmp_path, "train")) == b""
    run(images / "test", tmp_path, name="test")
    assert conflicts(caplog) == []
