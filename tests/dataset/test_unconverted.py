import csv
import json
import re
import shutil
from itertools import islice

import numpy as np
import pytest
from PIL import Image

import run
from library.dataset.sources.find import SourceOptions
from library.dataset.splits import read_splits
from library.dataset.unconverted import GeneratedSplit, read_generated, read_unconverted
from library.errors import DataError, run_main
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from project import inputs
from project.inputs import EvaluationPipeline, TrainingPipeline
from tests.conftest import ROOT, write_colors


@pytest.fixture
def folder(tmp_path):
    for seed, split in enumerate(("train", "validation", "test")):
        write_colors(tmp_path / "images" / split, 8, seed=seed)
    return tmp_path / "images"


@pytest.mark.slow
def test_training_split_fixes_classes_and_order(folder):
    for path in (folder / "test" / "blue").iterdir():
        path.unlink()
    (folder / "test" / "blue").rmdir()
    train, test = read_unconverted(folder, ["train", "test"], "folder")
    assert train.classes == test.classes == ("blue", "green", "red")
    assert train.class_counts == (8, 8, 8)
    assert test.class_counts == (0, 8, 8)
    assert [train.classes[each] for each in train.labels] == [
        train.read(number).text for number in range(train.examples)
    ]
    (again,) = read_unconverted(folder, ["train"], "folder")
    assert [again.read(each).filename for each in range(24)] == [
        train.read(each).filename for each in range(24)
    ]
    assert again.fingerprint == train.fingerprint != test.fingerprint


@pytest.mark.parametrize(
    ("class_order", "classes"), [("code_point", ("1", "10", "2")), ("natural", ("1", "2", "10"))]
)
def test_class_order_of_unconverted_data(tmp_path, class_order, classes):
    for name in classes:
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "train" / name / "1.png")
    (train,) = read_unconverted(tmp_path, ["train"], "folder", class_order=class_order)
    (generated,) = read_generated(
        lambda split: [(PIXELS, name) for name in classes], ["train"], class_order
    )
    assert train.classes == generated.classes == classes
    assert [train.read(n).text for n in range(3)] == [classes[each] for each in train.labels]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_splits_may_have_other_usual_names(folder, kind):
    (folder / "validation").rename(folder / "Val")
    (folder / "train").rename(folder / "training")
    path = folder
    if kind == "zip":
        path = shutil.make_archive(str(folder), "zip", folder)
    _, validation = read_unconverted(path, ["train", "validation"], "folder")
    assert (validation.name, validation.source) == ("validation", f"{path}/Val")


def test_fingerprint_changes_with_data(folder):
    (before,) = read_unconverted(folder, ["train"], "folder")
    Image.new("RGB", (5, 5)).save(folder / "train" / "red" / "000.png")
    (after,) = read_unconverted(folder, ["train"], "folder")
    assert before.fingerprint != after.fingerprint


@pytest.mark.slow
def test_files_without_class_are_rejected(folder):
    Image.new("RGB", (5, 5)).save(folder / "train" / "stray.png")
    (train,) = read_unconverted(folder, ["train"], "folder")
    assert train.examples == 24
    assert train.rejected_count == 1
    assert "is not converted" in train.describe()
    assert all(train.read(number).text != "" for number in range(24))


@pytest.mark.slow
def test_class_missing_in_training_is_refused(folder):
    (folder / "test" / "red").rename(folder / "test" / "rouge")
    with pytest.raises(DataError, match="test has the class 'rouge', which the training split lac"):
        read_unconverted(folder, ["train", "test"], "folder")


@pytest.mark.slow
def test_empty_split_is_refused(folder):
    for path in sorted((folder / "validation").glob("*/*")):
        path.unlink()
    for path in (folder / "validation").iterdir():
        path.rmdir()
    for _ in range(2):
        with pytest.raises(DataError, match="images/validation holds no images of any class"):
            read_unconverted(folder, ["train", "validation"], "folder")
        Image.new("RGB", (5, 5)).save(folder / "validation" / "stray.png")
    (folder / "validation").rename(folder / "train_")
    (folder / "train").rename(folder / "validation")
    (folder / "train_").rename(folder / "train")
    with pytest.raises(DataError, match="images/train: the images have no class"):
        read_unconverted(folder, ["validation"], "folder")


def write_table(path, rows):
    path.write_text("".join(f"{','.join(map(str, row))}\n" for row in rows))
    return path


@pytest.mark.slow
def test_missing_files_of_table_are_refused(folder, tmp_path):
    names = [path.relative_to(tmp_path) for path in sorted(folder.glob("train/*/*"))]
    rows = [("TRAIN", name, name.parts[2]) for name in names]
    table = write_table(tmp_path / "images.csv", [*rows, ("TRAIN", "gone.png", "red")])
    with pytest.raises(DataError, match=r"images.csv/train/gone.png: No such file .*y; convert"):
        read_unconverted(table, ["train"], "csv")
    (folder / "train" / "red" / "000.png").unlink()
    with pytest.raises(DataError, match=r": No such file or directory, and 1 more file"):
        read_unconverted(table, ["train"], "csv")


@pytest.fixture
def multi_label(patches):
    """The splits of a CSV file of several classes an image, not converted."""
    table = patches / "images" / "patches.csv"
    return read_unconverted(table, ["train", "test"], "csv", SourceOptions(label_separator="|"))


@pytest.mark.slow
def test_multi_label_images_match_converted_ones(patches, multi_label):
    for split, converted in zip(multi_label, read_splits(patches, "train", "test"), strict=True):
        assert split.is_multi_label
        assert split.classes == converted.classes == ("blue", "red")
        assert split.class_counts == converted.class_counts
        found = []
        for each in (split, converted):
            inputs = EvaluationPipeline(make_source(each), ImageFormat(8, 3), 64)
            ((images, labels, names),) = inputs.named_batches()
            rows = zip(names.numpy(), images.numpy(), labels.numpy(), strict=True)
            found.append({name: (image.tolist(), label.tolist()) for name, image, label in rows})
        assert found[0] == found[1]
        assert sorted({tuple(label) for _, label in found[0].values()}) == [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        ]


@pytest.mark.slow
def test_csv_columns_may_have_other_names(folder, tmp_path):
    rows = [("where", "set", "what")]
    rows += [(f"images/train/{name}/000.png", "train", name) for name in ("blue", "red")]
    table = write_table(tmp_path / "images.csv", rows)
    (split,) = read_unconverted(
        table, ["train"], "csv", SourceOptions(columns=("set", "where", "what"))
    )
    assert {split.read(number).text for number in range(2)} == {"blue", "red"}
    with pytest.raises(DataError, match="has no column 'FILE'"):
        read_unconverted(table, ["train"], "csv")


@pytest.mark.slow
def test_csv_needs_csv_file(folder):
    with pytest.raises(DataError, match="data_format csv needs a CSV file"):
        read_unconverted(folder, ["train"], "csv")


@pytest.mark.slow
def test_remote_folder_matches_local_one(folder):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in folder.glob("*/*/*"):
        memory.pipe_file(f"/bucket/images/{path.relative_to(folder)}", path.read_bytes())
    splits = [
        *read_unconverted(folder, ["train"], "folder"),
        *read_unconverted("memory://bucket/images", ["train"], "folder"),
    ]
    assert "memory://bucket/images/train is not converted" in splits[1].describe()
    batches = [
        list(TrainingPipeline(make_source(each), ImageFormat(8, 3), 5, 9, seed=0).batches(2, 1))
        for each in splits
    ]
    assert len(batches[0]) == 4
    for (images, labels), (same_images, same_labels) in zip(*batches, strict=True):
        assert np.array_equal(images, same_images)
        assert np.array_equal(labels, same_labels)


@pytest.mark.slow
def test_remote_table_matches_local_one(folder):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    rows = []
    for path in sorted(folder.glob("*/*/*")):
        name = path.relative_to(folder)
        memory.pipe_file(f"/tables/{name}", path.read_bytes())
        rows.append(f"{name.parts[0].upper()},{name},{name.parts[1]}\n")
    (folder / "images.csv").write_text("".join(rows))
    memory.pipe_file("/tables/images.csv", "".join(rows).encode())
    (local,) = read_unconverted(folder / "images.csv", ["train"], "csv")
    (remote,) = read_unconverted("memory://tables/images.csv", ["train"], "csv")
    assert remote.examples == local.examples == 24
    for number in range(24):
        assert remote.read(number) == local.read(number)
    memory.rm_file(f"/tables/{remote.filename(3).decode()}")
    with pytest.raises(
        DataError, match=r"images.csv/train/\S+ can't be read: there is no memory://tables/train/"
    ):
        remote.read(3)


def call(capsys, *arguments):
    code = run_main(run.main, [str(each) for each in arguments], "run.py")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# Folders are trained on by tests/suites.
@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["csv", "generator"])
def test_training_without_conversion(capsys, monkeypatch, folder, data_format):
    monkeypatch.chdir(ROOT)
    data_dir = folder
    if data_format == "csv":
        data_dir = folder.parent / "images.csv"
        with data_dir.open("w", newline="") as file:
            writer = csv.writer(file)
            for path in sorted(folder.glob("*/*/*")):
                name = path.relative_to(folder.parent)
                writer.writerow([name.parts[1].upper(), name, name.parts[2]])
    options = ["--data_dir", data_dir, "--data_format", data_format, "--batch_size", 8]
    options += ["--run_dir", folder.parent / "run", "--image_size", 16, "--learning_rate", 0.01]
    options += ["--model", "simple"]
    code, out, err = call(capsys, *options, "--train_epochs", 4, "--dropout_rate", 0)
    assert code == 0, err
    assert ("comes from a generator" if data_format == "generator" else "is not converted") in err
    assert json.loads(out)["validation"]["accuracy"] > 0.9
    code, out, err = call(capsys, "evaluate", *options)
    assert code == 0, err
    assert json.loads(out)["images"] == (60 if data_format == "generator" else 24)


@pytest.mark.slow
def test_broken_image_stops_run_by_name(capsys, monkeypatch, folder):
    monkeypatch.chdir(ROOT)
    (folder / "validation" / "red" / "000.png").write_bytes(b"nothing")
    options = ["--data_dir", folder, "--data_format", "folder", "--batch_size", 8]
    code, _, err = call(
        capsys, *options, "--run_dir", folder.parent / "run", "--image_size", 16,
        "--train_epochs", 1, "--model", "simple",
    )  # fmt: skip
    assert code == 3
    assert f"{folder}/validation/red/000.png is not a JPEG" in err.splitlines()[-1]


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 1), np.uint8)


def test_generated_images_become_records(tmp_path):
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "image.png")

    def generate(split):
        yield PIXELS, "b"
        yield (tmp_path / "image.png").read_bytes(), "a"

    (split,) = read_generated(generate, ["train"])
    first, second = split.records()
    assert (first.height, first.width, first.label, first.text) == (6, 5, 1, "b")
    assert (second.height, second.width, second.label, second.text) == (3, 4, 0, "a")
    assert split.class_counts == (1, 1)
    assert "was run once to count its 2 images" in split.describe()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ((np.zeros((3, 3), np.uint8), "a"), "is uint8 (3, 3); pixels are uint8 (height, width, 1"),
        ((np.zeros((3, 3, 3)), "a"), "is float64 (3, 3, 3); pixels are"),
        ((np.zeros((0, 3, 3), np.uint8), "a"), "is uint8 (0, 3, 3); pixels are"),
        ((np.zeros((65_501, 1, 3), np.uint8), "a"), "is uint8 (65501, 1, 3); pixels are"),
        ((b"text", "a"), "is not a JPEG"),
        (("cat/7.jpg", "a"), "is str, str; it must be a pair"),
        (([[1]], "a"), "is list, str; it must be"),
        ((PIXELS, np.int64(3)), "is ndarray, int64; it must be"),
        ((PIXELS, ""), "has a wrong label"),
        ((PIXELS, ["a", "b"]), "is ndarray, list; it must be"),
        (PIXELS, "is ndarray; it must be a pair"),
        ((PIXELS, "a", 1), "is ndarray, str, int; it must be a pair"),
    ],
)
def test_generator_must_yield_images_with_class(image, text):
    with pytest.raises(DataError) as caught:
        GeneratedSplit(lambda name: [(PIXELS, "a")] * 4 + [image], "train")
    assert str(caught.value).startswith(f"image 4 of the generator's split train {text}")


def test_generated_bytes_must_be_an_image():
    split = GeneratedSplit(lambda name: [(PIXELS, "a")] * 3 + [(b"text", "a")], "train")
    with pytest.raises(DataError, match="image 3 of the generator's split train is not a JPEG"):
        list(split.records())


def test_generator_must_yield_something():
    with pytest.raises(DataError, match=r"split train is None: it must yield \(image, class name"):
        read_generated(lambda name: None, ["train"])
    with pytest.raises(DataError, match="the generator's split validation holds no images of any"):
        read_generated(lambda name: [(PIXELS, "a")] * (name == "train"), ["train", "validation"])


@pytest.mark.parametrize(("count", "words"), [(39, "39"), (0, "0"), (41, "more")])
def test_generator_must_yield_as_many_as_counted(count, words):
    split = GeneratedSplit(lambda name: [(PIXELS, "a")] * 40, "train")
    split._generate = lambda name: [(PIXELS, "a")] * count
    # Whoever takes 40 is told, without asking for another.
    with pytest.raises(DataError, match=f"split train yields {words} images, and 40 images when"):
        list(islice(split.records(), 40))


def test_generator_must_yield_counted_classes():
    split = GeneratedSplit(lambda name: [(PIXELS, "a")], "train")
    split._generate = lambda name: [(PIXELS, "b")]
    with pytest.raises(DataError, match=r"split train yields the class 'b'"):
        list(split.records())


@pytest.mark.slow
@pytest.mark.parametrize("change", [-4, 4])
@pytest.mark.parametrize("engine", ["loop", "fit"])
def test_changing_generator_stops_run(capsys, monkeypatch, options, engine, change):
    called = []

    def generate(split):
        called.append(split)
        count = 32 + (called.count("train") > 1 and split == "train") * change
        for number in range(count):
            yield PIXELS, "ab"[number % 2]

    monkeypatch.setattr(inputs, "generate_images", generate)
    arguments = [*options, "--data_format", "generator", "--engine", engine]
    assert run_main(run.main, arguments, "run.py") == 3
    now = "more" if change > 0 else "28"
    assert re.search(
        f"error: the generator's split train yields {now} images, and 32 images when",
        capsys.readouterr().err.splitlines()[-1],
    )
