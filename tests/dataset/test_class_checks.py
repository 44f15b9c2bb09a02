import errno
import os
import shutil

import pytest
from PIL import Image

from library.dataset.class_checks import check_trainable, log_lacking_classes
from library.dataset.manifest import Manifest, Shard
from library.dataset.sources.base import split_meant
from library.dataset.splits import read_splits
from library.dataset.unconverted import read_unconverted
from library.errors import CheckpointError, DataError, SettingsError, UserError
from library.saving.checkpoints import check_classes
from tests.conftest import convert


def write(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return root


def classes(*names):
    return [f"{name}/{number}.png" for name in names for number in range(4)]


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            ["train", "Training", "TRAIN", " train ", "train_set", "training_set", "train-data"],
        ),
        ("validation", ["val", "VALID", "dev", "eval", "Validation", "development", "Evaluation"]),
        ("test", ["test", "testing", "Test Set", "TEST", "test_set", "test images"]),
        (
            None,
            ["trains", "valley", "device", "testament", "unlabeled", "cat", "invalid", "sets", ""],
        ),
    ],
)
def test_split_meant_by_a_name(split, names):
    assert {split_meant(each) for each in names} == {split}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar"])
@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test"),
        ("Train", "VAL"),
        ("training_set", "test_set", "single"),
        ("dev", "eval", "test"),
    ],
)
@pytest.mark.parametrize("options", [("--split=validation=0.3",), ()])
def test_splits_are_not_taken_for_classes(tmp_path, kind, folders, options):
    root = write(
        tmp_path / "images", *classes(*(f"{each}/{name}" for each in folders for name in "ab"))
    )
    source = root if kind == "folder" else shutil.make_archive(str(root), kind, root)
    name = [] if options else ["--tfrecord_filename", "train"]
    with pytest.raises(DataError, match=rf"has splits, not classes.*--dataset_dir {source}/\w+ "):
        run(source, tmp_path / "out", *options, *name)


def run(source, folder, *options):
    import convert_dataset

    convert_dataset.main(
        ["--dataset_dir", str(source), "--tfrecord_dir", str(folder), "--num_workers=1", *options]
    )


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        *(("flowers", "folder"), ("flowers", "gztar"), ("data/flowers", "zip")),
        *(("data/train", "gztar"), ("data/train", "folder"), ("train", "zip")),
    ],
)
def test_folder_around_the_classes_is_named(tmp_path, inside, kind):
    names = classes(f"{inside}/rose", f"{inside}/tulip")
    root = write(tmp_path / "images", *names, f"__MACOSX/{inside}/x.png")
    source = root if kind == "folder" else shutil.make_archive(str(root), kind, root)
    for option in ("--split=validation=0.3", "--tfrecord_filename=train"):
        with pytest.raises(DataError, match=rf"one class.*--dataset_dir {source}/{inside}$"):
            run(source, tmp_path / "out", option)
    run(f"{source}/{inside}", tmp_path / "out", "--tfrecord_filename=train")


def test_folder_around_splits_is_named(tmp_path):
    root = write(tmp_path / "images", *classes("x/train/a", "x/train/b", "x/val/a", "x/val/b"))
    with pytest.raises(DataError, match=rf"splits \(train, val\).*--dataset_dir {root}/x/train "):
        run(root, tmp_path / "out", "--split=validation=0.3")


def test_missing_split_name_lists_splits_by_any_name(tmp_path):
    root = write(tmp_path / "images", *classes("Val/a", "Val/b", "Training/a", "Training/b"))
    with pytest.raises(SettingsError, match=rf"has splits.*{root}/Training"):
        run(root, tmp_path / "out")
    with pytest.raises(SettingsError, match="such as validation"):
        run(root / "Val", tmp_path / "out")


def test_inspect_finds_splits_by_any_name(tmp_path, capsys, monkeypatch):
    import convert_dataset

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "images", *classes("Val/a", "Val/b", "Training/a", "Training/b"))
    for source in ("images", "images.zip"):
        shutil.make_archive("images", "zip", "images")
        convert_dataset.main(["inspect", "--dataset_dir", source])
        assert capsys.readouterr().out.split()[:2] == ["train", "validation"]


def test_one_class_is_refused_in_conversion(tmp_path):
    root = write(tmp_path / "images", *classes("cat"))
    (root / "train.csv").write_text("TRAIN,cat/0.png,cat\nTRAIN,cat/1.png,cat\n", encoding="utf-8")
    for source in (root, root / "train.csv"):
        with pytest.raises(DataError, match="one class, 'cat'"):
            run(source, tmp_path / "out", "--tfrecord_filename=train")
    with pytest.raises(DataError, match=r"one class, 'cat'.*--classes_from"):
        run(root, tmp_path / "out", "--tfrecord_filename=test")


def test_classes_of_training_allow_one_class_in_another_split(tmp_path, capsys):
    root = write(tmp_path / "images", *classes("train/a", "train/b", "train/c", "test/a"))
    convert(root / "train", tmp_path, "train")
    convert(root / "test", tmp_path, "test")
    assert "4 images of 1 of 3 classes; none of b, c; in 1 shard" in capsys.readouterr().out
    classes_from = tmp_path / "train" / "train.manifest.json"
    options = ("--tfrecord_filename=test", f"--classes_from={classes_from}")
    run(root / "test", tmp_path / "elsewhere", *options)


@pytest.mark.parametrize(("labels", "is_refused"), [(["a", ""], False), (["a", "a"], True)])
def test_one_class_that_some_images_lack_is_a_question(tmp_path, labels, is_refused):
    root = write(tmp_path / "images", "0.png", "1.png")
    table = root / "images.csv"
    table.write_text(
        "".join(f"TRAIN,{n}.png,{each}\n" for n, each in enumerate(labels)), encoding="utf-8"
    )
    arguments = (table, tmp_path / "out", "--tfrecord_filename=train", "--label_separator=|")
    if is_refused:
        with pytest.raises(DataError, match="one class, 'a'"):
            run(*arguments)
    else:
        run(*arguments)


def test_one_class_is_refused_unconverted(tmp_path):
    write(tmp_path, *classes("train/cat", "validation/cat"))
    with pytest.raises(DataError, match="one class, 'cat'"):
        read_unconverted(tmp_path, ("train", "validation"), "folder")
    write(tmp_path / "2", *classes("train/data/cat", "train/data/dog", "validation/data/cat"))
    with pytest.raises(DataError, match=r"around cat, dog"):
        read_unconverted(tmp_path / "2", ("train", "validation"), "folder")


def manifest(counts, **options):
    shard = Shard("x.tfrecord", options.pop("examples", sum(counts.values())), 1, "0" * 64)
    return Manifest("", "train", tuple(counts), tuple(counts.values()), (shard,), **options)


def test_one_class_is_refused_before_training():
    with pytest.raises(DataError, match="train have one class, 'cat'"):
        check_trainable(manifest({"cat": 4}))
    with pytest.raises(DataError, match="one class"):
        check_trainable(manifest({"cat": 4}, is_multi_label=True))
    check_trainable(manifest({"cat": 4}, is_multi_label=True, examples=5))
    check_trainable(manifest({"cat": 4, "dog": 0}))


def test_lacking_classes_are_logged_before_training(caplog):
    log_lacking_classes([manifest({"a": 2, "b": 1}), manifest({"a": 1, "b": 0, "c": 0})])
    assert [each.message for each in caplog.records] == [
        "train holds 1 image of 1 of 3 classes; none of b, c"
    ]


def test_data_of_some_classes_name_classes_from():
    with pytest.raises(CheckpointError, match=r"only there: 'c'.*--classes_from"):
        check_classes("best", ("a", "b", "c"), ("a", "b"))
    with pytest.raises(CheckpointError) as caught:
        check_classes("best", ("a", "b"), ("a", "b", "c"))
    assert "--classes_from" not in str(caught.value)
    # Earlier versions stored the names of a folder as they were.
    check_classes("best", ("cafe\u0301", "dog"), ("caf\u00e9", "dog"))


def test_split_of_some_classes_names_classes_from(tmp_path):
    root = write(tmp_path / "images", *classes("train/a", "train/b", "train/c", "test/a", "test/b"))
    convert(root / "train", tmp_path, "train")
    run(root / "test", tmp_path / "elsewhere" / "test", "--tfrecord_filename=test")
    shutil.move(tmp_path / "elsewhere" / "test", tmp_path / "test")
    path = tmp_path / "train" / "train.manifest.json"
    with pytest.raises(DataError, match=rf"convert test again with --classes_from {path}"):
        read_splits(tmp_path, "train", "test")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_folder_of_images_names_tfrecord_dir(tmp_path, monkeypatch, number):
    import convert_dataset

    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    root = write(tmp_path / "train", *classes("a", "b"))
    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(UserError, match=rf"{root} can't be written: .*--tfrecord_dir") as caught:
        convert_dataset.main(["--dataset_dir", str(root)])
    assert caught.value.exit_code == 1
    with pytest.raises(UserError) as caught:
        convert_dataset.main(["--dataset_dir", str(root), "--tfrecord_dir", str(tmp_path / "out")])
    assert "--tfrecord_dir" not in str(caught.value)
