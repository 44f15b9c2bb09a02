import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from library.dataset.class_checks import check_trainable
from library.dataset.file_index import FileIndex
from library.dataset.locations import FileLocation
from library.dataset.manifest import Manifest
from library.dataset.sources.base import LabeledFile, composed
from library.dataset.sources.class_names import normalize_class, normalize_labels
from library.dataset.sources.find import SourceOptions, find_files
from library.dataset.split_assignment import Splitter
from library.dataset.unconverted import GeneratedSplit
from library.errors import DataError
from library.logging import log_once
from tests.conftest import ROOT

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
UNUSABLE = ["a\nb", "a\r", "\x00", "a\x7f", "a\x85b", "a\u2028b", "caf\udce9", "", " ", "\u00a0"]


@pytest.mark.parametrize(
    "name",
    ["cat", "hot dog", "a/b", "a|b", "unknown", "犬", "👩\u200d🚒", "x" * 3000, "#1", "-1", "é"],
)
def test_usable_name_stays_as_it_is(name):
    assert normalize_class(name) == name


def test_name_becomes_nfc_without_spaces_around_it():
    assert normalize_class(DECOMPOSED) == COMPOSED
    assert normalize_class(" hot dog\u00a0") == "hot dog"


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_name_is_refused_on_one_line(name):
    with pytest.raises(DataError) as caught:
        normalize_class(name)
    assert str(caught.value).isprintable()
    assert "class name" in str(caught.value)


def test_zip_of_macos_has_names_in_utf8_without_saying_so(tmp_path):
    class Silent(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):  # noqa: N802
            return self.filename.encode(), 0

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(Silent(f"{DECOMPOSED}/1.jpg"), b"utf-8")
        archive.writestr("na\u00efve/1.jpg", b"flagged")
    assert labels_of(tmp_path / "a.zip") == {COMPOSED, "na\u00efve"}


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "csv"])
def test_names_are_utf8_whatever_the_locale(tmp_path, locale, kind):
    root = tmp_path / "images"
    for label in (DECOMPOSED, "dog"):
        (root / label).mkdir(parents=True)
        (root / label / "é.jpg").write_bytes(b"bytes")
    source = root
    if kind == "csv":
        source = root / "images.csv"
        source.write_text(f"TRAIN,{COMPOSED}/é.jpg,{COMPOSED}\n", encoding="utf-8")
        (root / DECOMPOSED).rename(root / COMPOSED)
    elif kind != "folder":
        source = shutil.make_archive(str(root), kind, root)
    code = (
        "import sys; from library.dataset.sources.find import find_files\n"
        "for file in find_files(sys.argv[1]): print(ascii(file.label), file.location.read())"
    )
    # Python itself would turn to UTF-8 in the locale C.
    settings = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.run(
        [sys.executable, "-c", code, str(source)],
        env=os.environ | settings,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert ascii(COMPOSED) + " b'bytes'" in process.stdout.splitlines(), process.stderr


def file(name, label):
    return LabeledFile(name, label, 1, 1, FileLocation(name))


def test_labels_of_images_with_several_classes_are_normalized():
    files = [file("1", ("a", DECOMPOSED, COMPOSED)), file("2", ()), file("3", ("b ", "a"))]
    labels = [each.label for each in normalize_labels(files, "x.csv")]
    assert labels == [("a", COMPOSED), (), ("a", "b")]


def labels_of(source, **options):
    return {each.label for each in find_files(source, SourceOptions(**options))}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar", "csv"])
def test_both_forms_of_a_name_are_one_class_in_every_source(tmp_path, caplog, kind):
    caplog.set_level("INFO")
    log_once.cache_clear()
    root = tmp_path / "images"
    for label in (COMPOSED, DECOMPOSED, "dog", "dog "):
        (root / label).mkdir(parents=True)
        (root / label / "1.jpg").write_bytes(label.encode())
    source = root
    if kind == "csv":
        source = root / "images.csv"
        lines = [
            f"TRAIN,{each.name}/1.jpg,{each.name}\n" for each in root.iterdir() if each.is_dir()
        ]
        source.write_text("".join(lines), encoding="utf-8")
    elif kind != "folder":
        source = shutil.make_archive(str(root), kind, root)
    assert labels_of(source) == {COMPOSED, "dog"}
    assert f"{source}: class names were normalized" in caplog.text
    assert f"{COMPOSED}" in caplog.text
    # Each file is still read under its own name.
    contents = [each.location.read() for each in find_files(source)]
    assert sorted(contents) == sorted(
        each.encode() for each in (COMPOSED, DECOMPOSED, "dog", "dog ")
    )


@pytest.mark.parametrize("kind", ["folder", "tar", "csv"])
@pytest.mark.parametrize("name", ["a\nb", "caf\udce9"])
def test_unusable_name_is_refused_in_every_source(tmp_path, kind, name):
    root = tmp_path / "images"
    for label in (name, "dog"):
        (root / label).mkdir(parents=True)
        (root / label / "1.jpg").write_bytes(b"bytes")
    source = root
    if kind == "csv":
        source = root / "images.csv"
        source.write_bytes(b'TRAIN,dog/1.jpg,dog\nTRAIN,dog/2.jpg,"' + os.fsencode(name) + b'"\n')
    elif kind == "tar":
        source = shutil.make_archive(str(root), kind, root)
    with pytest.raises(DataError, match=r"the class name '(a\\nb|caf\\udce9)'"):
        labels_of(source)


def test_name_from_a_generator_is_normalized_or_refused():
    pixels = np.zeros((8, 8, 3), np.uint8)
    split = GeneratedSplit(lambda name: [(pixels, DECOMPOSED), (pixels, "dog")], "train")
    assert split.classes == (COMPOSED, "dog")
    assert {each.text for each in split.records()} == {COMPOSED, "dog"}
    with pytest.raises(DataError, match=r"image 1 of .*the class name"):
        GeneratedSplit(lambda name: [(pixels, "dog"), (pixels, "a\nb")], "train")


@pytest.mark.parametrize("name", ["caf\udce9", "a\nb"])
def test_earlier_conversion_with_an_unusable_name_is_refused_before_training(name):
    with pytest.raises(DataError, match="train: the class name"):
        check_trainable(Manifest("", "train", (name, "dog"), (1, 1), ()))


def test_file_is_in_the_same_split_in_both_forms():
    splitter = Splitter({"train": 0.5, "test": 0.5})
    names = [f"{DECOMPOSED}/{number}.jpg" for number in range(50)]
    assert [splitter.split_of(n) for n in names] == [splitter.split_of(composed(n)) for n in names]


def test_index_keeps_both_files_whose_names_compose_to_one():
    index = FileIndex(
        normalize_labels([file(f"{each}/1", each) for each in (COMPOSED, DECOMPOSED)], "")
    )
    assert index.counts == {COMPOSED: 2}
    assert {index[n].name for n in range(2)} == {f"{COMPOSED}/1", f"{DECOMPOSED}/1"}
