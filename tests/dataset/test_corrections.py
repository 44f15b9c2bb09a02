"""Rows that relabel and drop images, whatever they are named, and rows that can't be applied."""

import csv
import hashlib
import io
import shutil
import tempfile
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

import convert_dataset
from library.dataset.conversion import Source
from library.dataset.corrections import COLUMNS, Corrections, read_corrections
from library.dataset.manifest import manifest_path, read_manifest
from library.dataset.records import Record, frame
from library.dataset.split_assignment import Splitter, read_fractions
from library.errors import DataError, SettingsError
from tests.conftest import write_colors, write_patches
from tests.helpers.converting import contents, records


def write_rows(path, *rows, header=COLUMNS):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def row(file, action, new_label="", sha256=""):
    return (file, sha256, action, "", new_label, "it looks so", "2026-11-30")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def convert(source, folder, corrections=None, *options):
    """Convert and return {file name: text or texts}."""
    arguments = ["--dataset_dir", source, "--tfrecord_dir", folder, "--num_workers", 1, *options]
    if "--split" not in options:
        arguments += ["--tfrecord_filename", "train"]
    if corrections:
        arguments += ["--corrections", corrections]
    convert_dataset.main(list(map(str, arguments)))


def find(source, corrections, split="train", splitter=None):
    return list(Source(str(source), split, splitter=splitter, corrections=corrections).find())


def labels(folder, name="train"):
    manifest = read_manifest(folder, name)
    return {each.filename: each.text for each in records(manifest)}


@pytest.fixture
def images(tmp_path):
    write_colors(tmp_path / "images", 4)
    return tmp_path / "images"


@pytest.fixture
def table(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar", "csv", "manifest", "url"])
def test_rows_relabel_and_drop_by_name_in_every_source(images, tmp_path, table, kind):
    source, prefix = images, ""
    if kind in ("zip", "gztar"):
        source = shutil.make_archive(str(tmp_path / "packed"), kind, images)
    elif kind == "csv":
        rows = [(each.relative_to(tmp_path), each.parent.name) for each in images.rglob("*.png")]
        source, prefix = write_rows(tmp_path / "a.csv", *rows, header=("FILE", "LABEL")), "images/"
    elif kind == "url":
        fsspec = pytest.importorskip("fsspec")
        source = f"memory://{tmp_path}/images"
        fsspec.filesystem("memory").put(str(images), source, recursive=True)
    elif kind == "manifest":
        convert(images, tmp_path / "before")
        source = tmp_path / "before" / "train.manifest.json"
    write_rows(
        table,
        row(f"{prefix}red/001.png", "relabel", "blue"),
        row(f"{prefix}green/002.png", "drop"),
        row(f"{prefix}green/003.png", "keep"),
        row("red/gone.png", "keep"),
    )
    found = {each.name: each.label for each in find(source, Corrections(table))}
    assert found.pop(f"{prefix}red/001.png") == "blue"
    assert len(found) == 10
    assert all(text == name.split("/")[-2] for name, text in found.items())


def test_manifest_records_what_was_corrected_and_why(images, tmp_path, table):
    rows = [row("red/001.png", "relabel", "blue"), row("green/002.png", "drop")]
    # The last one has that label already.
    write_rows(table, *rows, row("red/000.png", "relabel", "red"), row("red/002.png", "keep"))
    convert(images, tmp_path / "shards", table)
    manifest = read_manifest(tmp_path / "shards", "train")
    assert manifest.class_counts == (5, 3, 3)
    assert labels(tmp_path / "shards")["red/001.png"] == "blue"
    why = {"reason": "it looks so", "date": "2026-11-30"}
    red, green = {"label": "red", "new_label": "blue"}, {"label": "green", "new_label": ""}
    assert manifest.settings["corrections"] == {
        "file": str(table),
        "sha256": digest(table),
        "relabeled": 1,
        "dropped": 1,
        "rows": [
            {"file": "red/001.png", "action": "relabel", **red, **why},
            {"file": "green/002.png", "action": "drop", **green, **why},
        ],
    }


def test_multi_label_rows_replace_all_classes(tmp_path, table):
    write_patches(tmp_path / "images")
    write_rows(table, row("TRAIN-0.png", "relabel", "red|blue"), row("TRAIN-3.png", "relabel", ""))
    source = tmp_path / "images" / "patches.csv" / "train"
    convert(source, tmp_path / "shards", table, "--label_separator", "|")
    manifest = read_manifest(tmp_path / "shards", "train")
    found = {each.filename: each.texts for each in records(manifest)}
    assert found["TRAIN-0.png"] == ("blue", "red")
    assert found["TRAIN-3.png"] == ()
    assert found["TRAIN-1.png"] == ("red",)


def test_renamed_and_renumbered_files_are_found_by_content(images, tmp_path, table):
    red = [images / "red" / f"{number:03d}.png" for number in range(4)]
    write_rows(
        table,
        row("red/000.png", "relabel", "blue", digest(red[0])),
        row("red/001.png", "relabel", "green", digest(red[1]).upper()),
        row("", "drop", "", digest(red[3])),
    )
    # The first moves to another class and name; the others are numbered anew.
    red[0].rename(images / "green" / "new.png")
    red[1].rename(red[0])
    red[2].rename(red[1])
    found = {each.name: each.label for each in find(images, Corrections(table))}
    assert found["green/new.png"] == "blue"
    assert found["red/000.png"] == "green"
    assert found["red/001.png"] == "red"
    assert "red/003.png" not in found


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (
            [row("red/9.png", "drop")],
            ["no image red/9.png", ".png is"],
        ),
        ([row("train/red/001.png", "drop")], ["line 2", "did you mean red/001.png"]),
        ([row("red/001.png", "relabel", "bleu")], ["line 2", "'bleu'", "did you mean 'blue'"]),
        ([row("red/001.png", "relabel")], ["line 2", "red/001.png", "missing"]),
        ([row("red/001.png", "relable", "blue")], ["line 2", "did you mean 'relabel'"]),
        ([row("red/001.png", "drop", "blue")], ["line 2", "drop"]),
        ([row("red/001.png", "drop", "", "abc")], ["line 2", "'abc'"]),
        ([row("", "drop")], ["line 2"]),
        (
            [
                row("red/001.png", "relabel", "blue"),
                row("red/002.png", "drop"),
                row("red/001.png", "keep"),
                row("red/002.png", "keep"),
            ],
            ["line 4", "red/001.png contradicts line 2", "also wrong: lines 5"],
        ),
        ([row("red/001.png", "drop", "", "0" * 64)], ["line 2", "red/001.png was replaced"]),
        ([row("red/gone.png", "drop", "", "SAME")], ["line 2", "several", "red/000", "green/copy"]),
        (
            [
                row("red/gone.png", "drop", "", "ONE"),
                row("red/gone2.png", "relabel", "blue", "ONE"),
            ],
            ["line 3", "contradicts line 2", "red/001.png"],
        ),
    ],
)
def test_rows_that_cannot_be_applied_are_named_in_one_line(images, tmp_path, table, rows, named):
    shutil.copy(images / "red" / "000.png", images / "green" / "copy.png")
    known = {"SAME": digest(images / "red" / "000.png"), "ONE": digest(images / "red" / "001.png")}
    write_rows(table, *([known.get(cell, cell) for cell in each] for each in rows))

    def apply():
        corrections = Corrections(table)
        find(images, corrections)
        corrections.check_classes()

    with pytest.raises(DataError) as caught:
        apply()
    text = str(caught.value)
    assert text.startswith(f"{table}, line ")
    assert "\n" not in text
    assert all(each in text for each in named), text


@pytest.mark.parametrize("by_content", [False, True])
def test_records_of_one_name_cannot_be_told_apart(images, tmp_path, table, by_content):
    content = (images / "red" / "000.png").read_bytes()
    other = (images / "red" / "001.png").read_bytes()
    frames = [
        frame(Record(content, 16, 16, 0, "a", "1.png")),
        frame(Record(other, 16, 16, 1, "b", "1.png")),
    ]
    (tmp_path / "a.tfrecord").write_bytes(b"".join(frames))
    by_name = row("1.png", "drop")
    write_rows(
        table, row("", "drop", "", digest(images / "red/001.png")) if by_content else by_name
    )
    with pytest.raises(DataError, match=r"line 2: several images have the name 1\.png"):
        find(tmp_path / "a.tfrecord", Corrections(table))


def test_unchanged_corrections_convert_nothing_twice(images, tmp_path, table, caplog):
    shards = tmp_path / "shards"
    convert(images, shards)
    before = contents(shards)
    write_rows(table, row("red/001.png", "relabel", "blue"))
    convert(images, shards, table)
    corrected = contents(shards)
    written = manifest_path(shards, "train").stat().st_mtime_ns
    convert(images, shards, table)
    assert manifest_path(shards, "train").stat().st_mtime_ns == written
    # Changed ones do, without --overwrite, because they are data.
    write_rows(table, row("red/001.png", "relabel", "green"))
    convert(images, shards, table)
    assert labels(shards)["red/001.png"] == "green"
    assert "lacks earlier" not in caplog.text
    write_rows(table, row("red/002.png", "relabel", "green"))
    convert(images, shards, table)
    assert "lacks earlier corrections of 1 image, such as red/001.png" in caplog.text
    # But forgotten ones would make all labels wrong again.
    with pytest.raises(SettingsError, match=r"corrections was .*, now none"):
        convert(images, shards)
    convert(images, shards, None, "--overwrite")
    assert contents(shards) == before != corrected


@pytest.mark.parametrize("group_by", [None, r"\d+"])
def test_corrections_move_no_image_to_another_split(tmp_path, table, group_by):
    write_colors(tmp_path / "images", 12)
    splitter = Splitter(read_fractions(["validation=0.25", "test=0.25"]), group_by)
    # Drawn for another split, and in the training split only because its class needs an image.
    rare = next(
        name
        for number in range(12, 99)
        if splitter.split_of(name := f"rare/{number:03d}.png") == "validation"
    )
    (tmp_path / "images" / "rare").mkdir()
    shutil.copy(tmp_path / "images" / "red" / "000.png", tmp_path / "images" / rare)

    def divide(corrections=None):
        return [
            {
                each.name: each.label
                for each in find(tmp_path / "images", corrections, split, splitter)
            }
            for split in splitter.fractions
        ]

    before = divide()
    assert rare in before[0]
    first, dropped = min(before[1]), min(before[2])
    write_rows(
        table, row(rare, "relabel", "red"), row(first, "relabel", "green"), row(dropped, "drop")
    )
    before[0][rare], before[1][first] = "red", "green"
    del before[2][dropped]
    assert divide(Corrections(table)) == before


def test_class_without_images_is_gone_unless_it_is_fixed(images, tmp_path, table, caplog):
    write_rows(table, *(row(f"green/{number:03d}.png", "drop") for number in range(4)))
    convert(images, tmp_path / "shards", table)
    assert read_manifest(tmp_path / "shards", "train").classes == ("blue", "red")
    assert "no image of green is left" in caplog.text
    convert(images, tmp_path / "plain")
    convert(images, tmp_path / "other", table, "--classes_from", tmp_path / "plain")
    assert read_manifest(tmp_path / "other", "train").class_counts == (4, 0, 4)
    # A class that is fixed may also be a new label, if no image has it otherwise.
    shutil.rmtree(images / "green")
    write_rows(table, row("red/001.png", "relabel", "green"))
    with pytest.raises(DataError, match="unknown class 'green'"):
        convert(images, tmp_path / "shards", table)
    convert(images, tmp_path / "other", table, "--classes_from", tmp_path / "plain")
    assert read_manifest(tmp_path / "other", "train").class_counts == (4, 1, 3)


def test_class_that_only_other_splits_have_left_is_named(tmp_path, table):
    write_colors(tmp_path / "images", 12)
    arguments = ("--split", "validation=0.5")
    convert(tmp_path / "images", tmp_path / "shards", None, *arguments)
    trained = labels(tmp_path / "shards" / "train")
    write_rows(table, *(row(each, "drop") for each in trained if each.startswith("green/")))
    with pytest.raises(DataError, match="train is left without images of green"):
        convert(tmp_path / "images", tmp_path / "shards", table, *arguments)
    assert labels(tmp_path / "shards" / "train") == trained


def test_dropped_images_are_not_unusable_ones(images, tmp_path, table):
    (images / "red" / "bad.png").write_bytes(b"rubbish")
    write_rows(table, row("red/bad.png", "drop"))
    convert(images, tmp_path / "shards", table)
    assert read_manifest(tmp_path / "shards", "train").rejected_count == 0


def test_image_beside_the_class_folders_can_only_be_dropped(images, tmp_path, table):
    shutil.copy(images / "red" / "000.png", images / "1.png")
    write_rows(table, row("1.png", "relabel", "red"))
    with pytest.raises(DataError, match=r"line 2: 1\.png has no class"):
        find(images, Corrections(table))
    write_rows(table, row("1.png", "drop"))
    assert len(find(images, Corrections(table))) == 12


def test_interrupted_conversion_resumes_with_its_corrections(images, tmp_path, table, monkeypatch):
    write_rows(table, row("red/001.png", "relabel", "blue"))
    convert(images, tmp_path / "whole", table, "--num_shards", 6)
    with monkeypatch.context() as patch:
        patch.setattr("library.dataset.conversion.publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(images, tmp_path / "shards", table, "--num_shards", 6)
    convert(images, tmp_path / "shards", table, "--num_shards", 6)
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("file,action\na.png,drop\n\na.png,drop\n", 1),
        ("File;Action;New_label\r\na.png; drop ;\r\n", 1),
        ("action\tfile\tmore\ndrop\ta.png\tx\n", 1),
        ("file,sha256,action,label,new_label,reason,date\n", 0),
    ],
)
def test_read_corrections_takes_what_spreadsheets_save(table, content, count):
    for encoding in ("utf-8-sig", "utf-16"):
        table.write_bytes(content.encode(encoding))
        rows, _ = read_corrections(table)
        assert [(each.file, each.action) for each in rows] == [("a.png", "drop")] * count


@pytest.mark.parametrize("content", [None, b"", b"image,label\na,b\n", b"\xff\xfe\0"])
def test_read_corrections_names_a_file_that_is_none(table, content):
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(DataError, match=r"corrections\.csv"):
        read_corrections(table)


@given(some.binary(max_size=200) | some.text(max_size=99).map(str.encode))
def test_read_corrections_reads_or_refuses_any_bytes(content):
    _read_bytes(b"file,action,new_label\n" + content)


CELLS = some.text(some.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=9)


@given(some.dictionaries(CELLS, some.tuples(CELLS, CELLS), max_size=5))
def test_read_corrections_reads_what_was_written(rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([name, "", "relabel", "", *row, "d"] for name, row in rows.items())
    found = _read_bytes(text.getvalue().encode())
    # Names that are one in Unicode's normal form contradict each other.
    if found is None:
        assert len({unicodedata.normalize("NFC", name) for name in rows}) < len(rows)
    else:
        assert {each.file: (each.new_label, each.reason) for each in found} == rows


def _read_bytes(content):
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with suppress(DataError):
            return read_corrections(file.name)[0]
    return None
