"""Splits that train_metadata and eval_metadata name."""

import logging

import numpy as np
import pytest
from PIL import Image

from library.dataset.foreign_splits import ForeignSplit, read_foreign_splits
from library.dataset.records import read_frames
from library.dataset.sources.find import SourceOptions
from library.dataset.unconverted import UnconvertedSplit
from library.errors import DataError
from tests.helpers.foreign_records import image_bytes, write_examples

OPTIONS = SourceOptions()


def write(path, *labels, texts=(), **fields):
    rows = [{"image": image_bytes(), "label": each, **fields} for each in labels]
    for row, text in zip(rows, texts, strict=False):
        row["text"] = text
    return write_examples(path, *rows)


def read(metadata, options=OPTIONS, class_order="code_point"):
    words = {name: [str(each) for each in paths] for name, paths in metadata.items()}
    return read_foreign_splits(words, options, class_order)


def test_training_split_fixes_classes(tmp_path):
    train = [write(tmp_path / "train-0", 1, 2), write(tmp_path / "train-1", 10)]
    splits = read({"train": train, "validation": [write(tmp_path / "eval", 10, 10, 1)]})
    assert splits["train"].classes == splits["validation"].classes == ("1", "10", "2")
    assert splits["train"].class_counts == (1, 1, 1)
    assert splits["validation"].class_counts == (1, 2, 0)
    assert [shard.examples for shard in splits["train"].shards] == [2, 1]
    natural = read({"train": train}, class_order="natural")["train"]
    assert natural.classes == ("1", "2", "10")
    assert natural.fingerprint != splits["train"].fingerprint


def test_words_are_paths_patterns_or_both(tmp_path):
    paths = [write(tmp_path / f"train-{n}", n) for n in range(3)]
    (tmp_path / "train.manifest.json").touch()
    expected = read({"train": paths})["train"]
    for words in (["train-*"], ["train-2", "train-[01]"], ["t*"]):
        assert read({"train": [tmp_path / each for each in words]})["train"] == expected
    assert read({"train": reversed(paths)})["train"].fingerprint == expected.fingerprint


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there are no files .*/train-\*"):
        read({"train": [tmp_path / "train-*"]})
    with pytest.raises(DataError, match=r"is a folder; name the TFRecord files in it"):
        read({"train": [tmp_path]})
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="holds no images"):
        read({"train": [tmp_path / "empty"]})


def test_class_that_training_lacks_is_refused(tmp_path):
    train, evaluation = write(tmp_path / "train", 0, 1), write(tmp_path / "eval", 2)
    with pytest.raises(DataError, match=r"eval has the class '2', which the training split lacks"):
        read({"train": [train], "validation": [evaluation]})


def test_texts_and_labels_agree_across_splits(tmp_path):
    train = write(tmp_path / "train", 0, 1, texts=("a", "b"))
    evaluation = write(tmp_path / "eval", 1, 2, texts=("a", "b"))
    with pytest.raises(DataError, match=r"eval: record 0 .*train: record 1 .*--tfrecord_fields"):
        read({"train": [train], "validation": [evaluation]})
    options = SourceOptions(tfrecord_fields=("label=none",))
    assert read({"train": [train], "validation": [evaluation]}, options)["train"].examples == 2


def test_labels_that_are_no_ids_are_reported(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    read({"train": [write(tmp_path / "train", 1, 2)]})
    assert "labels are 1, 2" in caplog.text


def test_fingerprint_changes_with_data_and_fields(tmp_path):
    path = write(tmp_path / "train", 0, 1, y=0)
    prints = [read({"train": [path]})["train"].fingerprint]
    options = SourceOptions(tfrecord_fields=("label=y",))
    prints.append(read({"train": [path]}, options)["train"].fingerprint)
    write(path, 1, 0, y=0)
    prints.append(read({"train": [path]})["train"].fingerprint)
    assert len(set(prints)) == 3


def write_table(path, *rows):
    for number in range(4):
        Image.new("RGB", (5, 5)).save(path.parent / f"{number}.png")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_table_and_records_mix(tmp_path):
    table = write_table(tmp_path / "a.csv", "SET,FILE,LABEL", "TRAIN,0.png,0", "TRAIN,1.png,1")
    splits = read({"train": [table], "validation": [write(tmp_path / "eval", 1)]})
    assert isinstance(splits["train"], UnconvertedSplit)
    assert isinstance(splits["validation"], ForeignSplit)
    assert splits["validation"].class_counts == (0, 1)


def test_table_of_several_sets_gives_each_split_its_own(tmp_path):
    rows = ("TRAIN,0.png,0", "TRAIN,1.png,1", "VALIDATION,2.png,1", "TEST,3.png,0")
    table = write_table(tmp_path / "a.csv", "SET,FILE,LABEL", *rows)
    splits = read({"train": [table], "validation": [table]})
    assert [each.examples for each in splits.values()] == [2, 1]


def test_reader_makes_the_record_of_a_conversion(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    rows = [
        {"image": image_bytes(9), "label": "b", "filename": "x.jpg"},
        {"image": image_bytes(9, kind="png", mode="RGBA"), "label": "a"},
        {"image_raw": pixels.tobytes(), "height": 9, "width": 7, "depth": 3, "label": "a"},
    ]
    path = write_examples(tmp_path / "train", *rows)
    reader = read({"train": [path]})["train"].reader
    with path.open("rb") as file:
        contents = [content for _, content in read_frames(file, path)]
    records = [reader.read(content) for content in contents]
    assert [each.label for each in records] == [1, 0, 0]
    assert [each.text for each in records] == ["b", "a", "a"]
    assert [(each.width, each.height) for each in records] == [(16, 12), (16, 12), (7, 9)]
    assert records[0].encoded == rows[0]["image"]
    assert reader.labels(contents).tolist() == [1, 0, 0]
    assert reader.filename(contents[0]) == b"x.jpg"


def test_table_without_sets_is_read_whole(tmp_path):
    table = write_table(tmp_path / "a.csv", "FILE,LABEL", "0.png,a", "1.png,b")
    assert read({"train": [table]})["train"].examples == 2
    table.write_text("FILE,LABEL\n0.png,\n")
    with pytest.raises(DataError, match=r"a\.csv"):
        read({"train": [table]})


def test_urls_are_downloaded_once(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    paths = [write(tmp_path / f"train-{n}", n) for n in range(3)]
    for path in paths:
        store.pipe_file(f"/foreign/{path.name}", path.read_bytes())
    words = ["memory://foreign/train-[01]", "memory://foreign/train-2"]
    first = read({"train": ["memory://foreign/train-*"]})["train"]
    assert first.fingerprint == read({"train": paths})["train"].fingerprint
    assert all(path.is_relative_to(tmp_path / "cache") for path in first.paths)
    times = [path.stat().st_mtime_ns for path in first.paths]
    assert read({"train": ["memory://foreign/train-*"]})["train"] == first
    assert [path.stat().st_mtime_ns for path in first.paths] == times
    assert read({"train": words})["train"].fingerprint == first.fingerprint
    store.pipe_file("/foreign/train-1", write(tmp_path / "train-1", 1, 2).read_bytes())
    assert read({"train": ["memory://foreign/train-*"]})["train"].examples == 4
    with pytest.raises(DataError, match=r"no files memory://foreign/nothing\*"):
        read({"train": ["memory://foreign/nothing*"]})
