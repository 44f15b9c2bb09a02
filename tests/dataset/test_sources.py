import io
import os
import random
import re
import shutil
import sys
import tarfile
import tempfile
import types
import unicodedata
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from library.dataset.file_index import FileIndex, name_hash
from library.dataset.locations import FileLocation, NoLocation
from library.dataset.record_fields import RecordFields
from library.dataset.records import Record, frame
from library.dataset.sources.base import NO_CLASS, LabeledFile, is_ignored, label_of
from library.dataset.sources.find import exists, find_files
from library.dataset.sources.folder import find_in_folder
from library.dataset.sources.keras_datasets import KERAS_DATASETS, find_in_keras
from library.dataset.sources.tfrecords import find_in_records
from library.errors import DataError, UserError


def labels_of(source):
    return {file.name: file.label for file in find_files(source)}


def test_label_of_is_first_folder():
    assert label_of("cat/1.jpg") == "cat"
    assert label_of("cat/indoors/dark/1.jpg") == "cat"


def test_label_of_skips_generated_and_system_files():
    for name in (
        "train_00000-of-00008.tfrecord",
        "train.manifest.json",
        "train.rejected.csv",
        "README.md",
        "cat/.DS_Store",
        "cat/._1.jpg",
        "cat/Thumbs.db",
        "cat/Desktop.ini",
        ".train.converting/00000.tfrecord",
        "__MACOSX/cat/1.jpg",
        "@eaDir/1.jpg",
        "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "cat/.AppleDouble/1.jpg",
        "cat/.ipynb_checkpoints/1-checkpoint.jpg",
        ".git/objects/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "$Recycle.Bin/S-1-5/1.jpg",
        "System Volume Information/1.jpg",
        "lost+found/1.jpg",
        "#recycle/cat/1.jpg",
        "cat/1.txt",
        "cat/1.XML",
        "cat/classes.json",
        "cat/indoors/1.jpg.xmp",
        "cat/train_00000-of-00008.tfrecord",
    ):
        assert label_of(name) is None, name


@pytest.mark.parametrize("label", ["Thumbs.db", "desktop.ini", "cat.txt", "json", "tmp", "Icon"])
def test_class_may_be_called_like_a_file_that_is_ignored(label):
    assert label_of(f"{label}/1.jpg") == label
    assert label_of(f"{label}/txt") == label


def test_label_of_image_beside_classes_is_no_class():
    assert label_of("1.JPG") == NO_CLASS


def test_find_files_refuses_missing_or_unknown_source(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: put images at"):
        labels_of(tmp_path / "nowhere")
    (tmp_path / "a.docx").write_bytes(b"text")
    with pytest.raises(DataError, match=r"a\.docx"):
        labels_of(tmp_path / "a.docx")
    assert not exists(tmp_path / "nowhere")
    assert exists(tmp_path)


@pytest.mark.parametrize("name", ["a.zip/train", "a.tar.gz", "train*.tfrecord"])
def test_find_files_refuses_archives_at_url(name):
    with pytest.raises(DataError, match=f"gs://bucket/{re.escape(name)}: "):
        find_files(f"gs://bucket/{name}")


file_names = some.text(
    some.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
class_names = (
    some.text(
        some.characters(exclude_characters="/\\", exclude_categories=["C", "Zl", "Zp"]), max_size=8
    )
    .map(lambda name: unicodedata.normalize("NFC", name).strip())
    .filter(lambda name: name not in ("", ".", ".."))
)
trees = some.dictionaries(
    some.builds(
        lambda *parts: "/".join((parts[0], *parts[1])),
        class_names,
        some.lists(file_names, max_size=3),
    ),
    some.binary(max_size=9),
    max_size=8,
)


@given(trees)
def test_any_tree_is_same_in_folder_and_archives(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("trees")
    # A path can't be a file and a folder at once.
    paths = [path for path in tree if not any(other.startswith(f"{path}/") for other in tree)]
    with (
        zipfile.ZipFile(root / "a.zip", "w") as zipped,
        tarfile.open(root / "a.tar", "w") as tar,
        tarfile.open(root / "b.tar.gz", "w:gz", compresslevel=1) as compressed,
    ):
        for path in paths:
            file = root / "folder" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tree[path])
            zipped.write(file, f"in/{path}")
            tar.add(file, f"in/{path}")
            compressed.add(file, f"in/{path}")
    expected = {
        path: (path.split("/")[0] if "/" in path else NO_CLASS, tree[path])
        for path in paths
        if label_of(path) is not None
    }
    sources = [root / each / "in" for each in ("a.zip", "a.tar", "b.tar.gz")]
    # A folder whose only files are the system's is no class anywhere but on disk.
    ours = {path.split("/")[0] for path in paths if "/" in path}
    if paths and all(any(path.startswith(f"{each}/") for path in expected) for each in ours):
        sources.append(root / "folder")
    for source in sources if paths else []:
        found = find_files(source)
        assert {
            file.name: (file.label, b"" if file.label == NO_CLASS else file.location.read())
            for file in found
        } == {
            name: (label, b"" if label == NO_CLASS else content)
            for name, (label, content) in expected.items()
        }


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes")


def labels_in(root, **options):
    return {file.name: file.label for file in find_in_folder(root, **options)}


def test_folder_of_any_depth(tmp_path):
    write(tmp_path, "cat/1.jpg", "cat/a/b/c/2.png", "dog/3", "train.manifest.json", "README.md")
    assert labels_in(tmp_path) == {"cat/1.jpg": "cat", "cat/a/b/c/2.png": "cat", "dog/3": "dog"}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "url"])
def test_sidecars_are_ignored_and_counted_once(tmp_path, caplog, kind):
    caplog.set_level("INFO")
    names = ("1.jpg", "1.txt", "2.xml", "3.XML", ".4.xml", "Thumbs.db", "x.rejected.csv")
    write(tmp_path / "images", *(f"cat/{each}" for each in names), "README.md", ".git/config.txt")
    source: object = tmp_path / "images"
    if kind == "url":
        pytest.importorskip("fsspec")
        source = f"file://{source}"
    elif kind != "folder":
        source = shutil.make_archive(str(source), kind, source)
    for _ in range(2):
        assert labels_of(source) == {"cat/1.jpg": "cat"}
    (record,) = caplog.records
    assert f"{source}: ignored 3 files" in record.message
    assert "(.txt 1, .xml 2)" in record.message


def test_folder_refuses_empty_class(tmp_path):
    write(tmp_path, "cat/1.jpg", "dog/.hidden")
    with pytest.raises(DataError, match=r"the class folder .*/dog holds no images"):
        labels_in(tmp_path)


def test_folder_excludes_shards(tmp_path):
    write(tmp_path, "cat/1.jpg", "shards/2.jpg")
    assert labels_in(tmp_path, exclude=tmp_path / "shards") == {"cat/1.jpg": "cat"}


def test_folder_visits_link_loops_once(tmp_path):
    write(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "self").symlink_to("self")
    (tmp_path / "cat" / "gone").symlink_to("nowhere")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert sorted(files) == ["cat/1.jpg", "cat/gone", "cat/self"]
    assert files["cat/gone"].location == NoLocation("No such file or directory")


def test_folder_follows_links_out_only_if_asked(tmp_path):
    write(tmp_path, "in/cat/1.jpg", "in/cat/a/2.jpg", "outside/3.jpg", "in-too/4.jpg")
    root = tmp_path / "in"
    (root / "cat" / "near.jpg").symlink_to("a/2.jpg")
    (root / "cat" / "far.jpg").symlink_to(tmp_path / "outside" / "3.jpg")
    (root / "cat" / "beside.jpg").symlink_to("../../in-too/4.jpg")
    # The folder itself may be a link, and be reached through others.
    (tmp_path / "link").symlink_to("in")
    for place in (root, tmp_path / "link", tmp_path / "outside" / ".." / "link"):
        files = {file.name: file.location for file in find_in_folder(place)}
        for name in ("cat/far.jpg", "cat/beside.jpg"):
            with pytest.raises(ValueError, match="--follow_links"):
                files.pop(name).read()
        assert {type(each) for each in files.values()} == {FileLocation}
        assert sorted(files) == ["cat/1.jpg", "cat/a/2.jpg", "cat/near.jpg"]
    (root / "dog").symlink_to("../outside")
    with pytest.raises(DataError, match=r"link .*in/dog leads out of .*in: copy .*--follow_links"):
        labels_in(root)
    followed = {file.name: file.location for file in find_in_folder(root, follow_links=True)}
    assert followed["dog/3.jpg"].read() == followed["cat/far.jpg"].read() == b"bytes"
    (root / ".hidden").symlink_to("../outside")
    (root / "dog").unlink()
    assert len(labels_in(root)) == 5


def test_folder_never_reads_pipe(tmp_path):
    write(tmp_path, "cat/1.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert isinstance(files["cat/pipe"].location, NoLocation)


def test_folder_never_reads_image_beside_classes(tmp_path):
    write(tmp_path, "cat/1.jpg", "2.jpg")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert isinstance(files["2.jpg"].location, NoLocation)


def test_unreadable_folder_is_one_line(tmp_path):
    write(tmp_path, "file")
    with pytest.raises(DataError, match="can't be read: Not a directory"):
        labels_in(tmp_path / "file")


class_names = some.text(
    some.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: not is_ignored(name) and len(name.encode()) < 200)


@given(some.sets(class_names, min_size=1, max_size=5))
def test_folder_finds_any_name(tmp_path_factory, classes):
    root = tmp_path_factory.mktemp("names")
    write(root, *(f"{name}/{name}.jpg" for name in classes))
    expected = {f"{name}/{name}.jpg": name for name in classes}
    assert labels_in(root) == expected


def test_folder_finds_name_that_is_not_utf8(tmp_path):
    write(tmp_path, os.fsdecode(b"\xff\xfe/\xe9.jpg"))
    assert labels_in(tmp_path) == {"\udcff\udcfe/\udce9.jpg": "\udcff\udcfe"}


def test_class_may_be_named_like_system_file(tmp_path):
    write(tmp_path, "Thumbs.db/1.jpg", "cat/2.jpg", "cat/Thumbs.db", "__MACOSX/cat/3.jpg")
    assert labels_in(tmp_path) == {"Thumbs.db/1.jpg": "Thumbs.db", "cat/2.jpg": "cat"}


def write_records(path, *records):
    path.write_bytes(b"".join(frame(record) for record in records))
    return path


ONE = Record(b"one", 9, 9, 0, "cat", "cat/1.jpg")
TWO = Record(b"two", 9, 9, 1, "1", "")


def test_shards_yield_record_locations(tmp_path):
    write_records(tmp_path / "a-0.tfrecord", ONE)
    write_records(tmp_path / "a-1.tfrecord", TWO, ONE)
    files = list(find_in_records(tmp_path / "a-*", RecordFields()))
    assert [(file.name, file.label) for file in files] == [
        ("cat/1.jpg", "cat"),
        ("a-1.tfrecord/0", "1"),
        ("cat/1.jpg", "cat"),
    ]
    assert [file.location.read() for file in files] == [b"one", b"two", b"one"]


def test_missing_and_damaged_shards_are_one_line(tmp_path):
    with pytest.raises(DataError, match="there are no files"):
        list(find_in_records(tmp_path / "a-*", RecordFields()))
    path = write_records(tmp_path / "a.tfrecord", ONE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.tfrecord: record 0 .* is truncated"):
        list(find_in_records(path, RecordFields()))
    with pytest.raises(DataError, match=r"train\.manifest\.json is missing"):
        list(find_in_records(tmp_path / "train.manifest.json", RecordFields()))


@pytest.fixture
def keras(monkeypatch):
    """A Keras whose datasets need no download."""
    train = (np.full((3, 8, 8, 3), 200, np.uint8), np.array([[0], [9], [3]]))
    test = (np.zeros((2, 8, 8), np.uint8), np.array([1, 1]))
    datasets = types.SimpleNamespace(
        cifar10=types.SimpleNamespace(load_data=lambda: (train, test)),
        mnist=types.SimpleNamespace(load_data=lambda: 1 / 0),
    )
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(datasets=datasets))
    monkeypatch.setattr("library.dataset.sources.keras_datasets.set_up_keras", lambda: None)


def test_keras_dataset_yields_images(keras):
    files = list(find_in_keras("cifar10", "train"))
    assert [file.name for file in files] == [
        "airplane/00000.png",
        "truck/00001.png",
        "cat/00002.png",
    ]
    image = Image.open(io.BytesIO(files[0].location.read()))
    assert image.getpixel((0, 0)) == (200, 200, 200)
    assert [file.label for file in find_in_keras("cifar10", "test")] == ["automobile"] * 2


def test_keras_download_reports_on_stderr(keras, capsys, monkeypatch):
    datasets = sys.modules["keras"].datasets
    data = datasets.cifar10.load_data()
    monkeypatch.setattr(datasets.cifar10, "load_data", lambda: print("Downloading") or data)
    list(find_in_keras("cifar10", "train"))
    assert capsys.readouterr() == ("", "Downloading\n")


def test_failed_keras_download_is_one_line(keras):
    with pytest.raises(DataError, match=r"keras.datasets.mnist can't be loaded: division by zero"):
        list(find_in_keras("mnist", "train"))


def test_keras_class_names_are_complete():
    counts = {name: len(set(classes)) for name, classes in KERAS_DATASETS.items()}
    assert counts == {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "mnist": 10}


LABELED = [LabeledFile(f"c{n % 3}/{n}", f"c{n % 3}", n, n, FileLocation("x")) for n in range(200)]


def names_in(listing):
    try:
        return [listing[number].name for number in range(len(listing))]
    finally:
        listing.close()


def test_file_index_order_depends_on_names_only():
    shuffled = random.Random(0).sample(LABELED, len(LABELED))
    one, other = FileIndex(LABELED), FileIndex(shuffled)
    assert one.fingerprint == other.fingerprint
    assert one.counts == {"c0": 67, "c1": 67, "c2": 66}
    assert names_in(one) == names_in(other)


def test_file_index_changes_with_seed_and_files():
    assert names_in(FileIndex(LABELED)) != names_in(FileIndex(LABELED, 1))
    changed = [LabeledFile("c0/0", "c0", 0, 99, FileLocation("x")), *LABELED[1:]]
    unread = [LabeledFile("c0/0", "c0", 0, 0, NoLocation("it is a link")), *LABELED[1:]]
    listings = [FileIndex(LABELED), FileIndex(changed), FileIndex(unread), FileIndex(LABELED[1:])]
    assert len({each.fingerprint for each in listings}) == 4
    for each in listings:
        each.close()


def test_file_index_closes_file_on_error():
    def failing():
        yield LABELED[0]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        FileIndex(failing())


def test_name_hash_is_stable():
    assert name_hash("cat/1.jpg", 8).hex() == "32018dafbde900d2"
    assert name_hash("\udcff", 8) != name_hash("\udcfe", 8)


def test_index_names_the_folder_that_is_full(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b", 0))
    with pytest.raises(UserError, match=f"{tempfile.gettempdir()} can't be written: No space left"):
        FileIndex(LABELED)
