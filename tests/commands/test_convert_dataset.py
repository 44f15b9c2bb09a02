import shutil
import subprocess
import sys

import pytest

import convert_dataset
from library.dataset.manifest import read_manifest
from library.dataset.options import ConversionOptions
from library.errors import DataError, SettingsError, UserError
from tests.conftest import ROOT, write_colors
from tests.helpers.converting import filenames


def main(*arguments):
    convert_dataset.main(list(map(str, arguments)))


@pytest.fixture
def data(tmp_path):
    write_colors(tmp_path / "data" / "train", 4)
    write_colors(tmp_path / "data" / "test", 2, seed=1)
    return tmp_path / "data"


def test_folder_of_split_gives_name_and_destination(data, capsys):
    main("--dataset_dir", data / "train")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{data}/train: train: ")
    assert "12 images of 3 classes in 1 shard " in line
    assert read_manifest(data / "train", "train").examples == 12


def test_convert_reads_bundled_sample(tmp_path):
    sample = ROOT / "dataset" / "sample.zip"
    main("--dataset_dir", sample / "test", "--tfrecord_dir", tmp_path, "--num_shards", 8)
    manifest = read_manifest(tmp_path, "test")
    assert manifest.class_counts == (100,) * 10
    assert len(manifest.shards) == 8
    main("--verify", "--tfrecord_dir", tmp_path, "--tfrecord_filename", "test")


def test_training_split_fixes_classes(data):
    main("--dataset_dir", data / "train")
    shutil.rmtree(data / "test" / "green")
    main("--dataset_dir", data / "test")
    manifest = read_manifest(data / "test", "test")
    assert manifest.classes == ("blue", "green", "red")
    assert manifest.class_counts == (2, 0, 2)
    (data / "test" / "red").rename(data / "test" / "cyan")
    with pytest.raises(DataError, match="the class 'cyan' is not among"):
        main("--dataset_dir", data / "test")


def test_split_keeps_assignment_of_old_images(data, tmp_path):
    write_colors(tmp_path / "photos", 40)
    arguments = ["--dataset_dir", tmp_path / "photos", "--split", "validation=0.2,test=0.2"]
    names = []
    for count in (40, 60):
        folder = tmp_path / f"divided-{count}"
        main(*arguments, "--tfrecord_dir", folder)
        splits = [read_manifest(folder / s, s) for s in ("train", "validation", "test")]
        assert sum(each.examples for each in splits) == 3 * count
        names.append([filenames(each) for each in splits])
        shutil.rmtree(tmp_path / "photos")
        write_colors(tmp_path / "photos", 60)
    assert all(before <= after for before, after in zip(*names, strict=True))


def test_split_left_by_an_earlier_division_is_named(data, tmp_path, caplog):
    arguments = ["--dataset_dir", data / "train", "--tfrecord_dir", tmp_path / "shards"]
    main(*arguments, "--split", "validation=0.3,test=0.3")
    main(*arguments, "--split", "validation=0.3,test=0.3")
    assert caplog.messages == []
    # A label is mended: the splits that are yet to be replaced don't contradict it.
    (data / "train" / "red").rename(data / "train" / "dark_red")
    main(*arguments, "--split", "validation=0.6", "--overwrite")
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert f"{tmp_path}/shards/test: test stays" in line


def test_outside_link_is_rejected_or_followed(data, tmp_path):
    (data / "train" / "red" / "far.png").symlink_to(data / "test" / "red" / "000.png")
    arguments = ["--dataset_dir", data / "train", "--tfrecord_dir", tmp_path / "shards"]
    main(*arguments, "--max_bad_fraction", 0.1)
    rejected = (tmp_path / "shards" / "train.rejected.csv").read_text()
    assert "red/far.png,red,can't be read: it is a link that leads out of the folder" in rejected
    main(*arguments, "--follow_links")
    assert read_manifest(tmp_path / "shards", "train").class_counts == (4, 4, 5)


def test_inspect_prints_summary_and_writes_page(data, tmp_path, capsys):
    page = tmp_path / "out" / "look.html"
    main("inspect", "--dataset_dir", data, "--report", page)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "12", "6"] in lines
    assert page.read_text().startswith("<!doctype html>")


def test_inspect_without_its_package_is_one_line(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "library.describing.dataset_summary", None)
    with pytest.raises(UserError, match=r"library\.describing"):
        main("inspect", "--dataset_dir", data)


def test_defaults_are_those_of_the_library():
    assert convert_dataset.make_conversion_options(convert_dataset.Settings()) == (
        ConversionOptions()
    )


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ([], SettingsError, "dataset_dir is missing"),
        (["--dataset_dir", "."], SettingsError, r"dataset_dir: .*, such as train"),
        (["--dataset_dir", "x"], SettingsError, "tfrecord_filename is missing.*--split"),
        (["--dataset_dir", "train/train"], DataError, "no folder train/train"),
        (["--dataset_dir", "a/*.tfrecord", "--tfrecord_filename=x"], SettingsError, "tfrecord_dir"),
        (["--dataset_dir", "train.csv/train"], SettingsError, "tfrecord_dir is missing"),
        (["--tfrecord_filename", "train"], SettingsError, "tfrecord_dir is missing"),
        (["--dataset_dir", "nowhere/train"], DataError, "there is no folder nowhere/train"),
        (["--tfrecord_filename", "../x"], SettingsError, "tfrecord_filename: '../x'"),
        (["--split", "test=0.1"], SettingsError, "tfrecord_dir is missing"),
        (["--split", "test=0.1", "--tfrecord_filename=x"], SettingsError, "split: .*filename"),
        (
            ["--split", "test=0.1", "--source", "mnist", "--tfrecord_dir", "x"],
            SettingsError,
            "mnist has its own test split",
        ),
        (
            ["--source", "mnist", "--tfrecord_filename", "validation", "--tfrecord_dir", "x"],
            SettingsError,
            "mnist .*--split validation",
        ),
        (["--dataset_dir", "x", "--max_edges", "3"], SettingsError, "did you mean '--max_edge'"),
        (["--dataset_dir", "train", "--background", "blu"], SettingsError, "background: 'blu'"),
        (["--tfrecord_filename", "train", "--tfrecord_dir", "x"], SettingsError, "dataset_dir is"),
        (["--dataset_dir", "a.zip/train", "--tfrecord_dir", "x"], DataError, "there is no folder"),
        (["--dataset_dir", "gs://b/train"], SettingsError, "tfrecord_dir is missing"),
        (["inspect", "--report", "s3://b/x"], SettingsError, "report must be a local path"),
        (["--verify", "--dataset_dir", "train"], DataError, r"train.manifest.json is missing"),
    ],
)
def test_usage_error_is_one_line(tmp_path, monkeypatch, arguments, error, reason):
    monkeypatch.chdir(tmp_path)
    write_colors(tmp_path / "train", 1)
    (tmp_path / "train.csv").write_text("TRAIN,train/red/000.png,red\n")
    with pytest.raises(error, match=reason) as caught:
        main(*arguments)
    assert "\n" not in str(caught.value)


def test_exit_codes(tmp_path):
    command = [sys.executable, str(ROOT / "convert_dataset.py")]
    for arguments, code in ((["--dataset_dir", "nowhere/train"], 3), (["--nonsense"], 2)):
        run = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == code
        assert run.stderr.startswith("convert_dataset.py: error: ")
        assert run.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_tensorflow_is_not_imported(data):
    code = (
        "import sys, convert_dataset\n"
        "convert_dataset.main(['--dataset_dir', sys.argv[1]])\n"
        "convert_dataset.main(['--verify', '--dataset_dir', sys.argv[1]])\n"
        "convert_dataset.main(['inspect', '--dataset_dir', sys.argv[1], '--report', sys.argv[2]])\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(data / "train"), str(data / "page.html")]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_images_are_not_changed(data, tmp_path):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in data.rglob("*.png")}
    main("--dataset_dir", data / "train", "--tfrecord_dir", tmp_path / "out")
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in data.rglob("*.png")} == before


def test_multi_label_split_is_converted_and_verified(patches, capsys):
    manifest = read_manifest(patches / "train", "train")
    assert manifest.is_multi_label
    assert manifest.classes == ("blue", "red")
    assert (manifest.examples, manifest.class_counts) == (48, (24, 24))
    main("--verify", "--tfrecord_dir", patches / "train", "--tfrecord_filename", "train")
    assert "verified" in capsys.readouterr().out


def test_multi_label_images_are_inspected(patches, tmp_path, capsys):
    table = patches / "images" / "patches.csv"
    report = tmp_path / "page.html"
    main("inspect", "--dataset_dir", table, "--label_separator", "|", "--report", report)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["blue", "24", "6", "6"] in lines
    assert ["images", "48", "12", "12"] in lines
    # 12 thumbnails of each class at most, of which some are of both.
    assert report.read_text().count("<figure>") >= 14


def test_multi_label_shards_and_tables_are_converted(patches, tmp_path):
    whole = patches / "test" / "test.manifest.json"
    main("--dataset_dir", whole, "--tfrecord_dir", tmp_path, "--tfrecord_filename", "test")
    manifest = read_manifest(tmp_path, "test")
    assert (manifest.is_multi_label, manifest.class_counts) == (True, (6, 6))
    table = patches / "images" / "patches.csv" / "validation"
    arguments = ["--dataset_dir", table, "--tfrecord_dir", tmp_path, "--overwrite"]
    arguments += ["--tfrecord_filename", "test", "--classes_from", whole]
    with pytest.raises(DataError, match="a file or a label is missing"):
        main(*arguments)
    main(*arguments, "--label_separator", "|")
    assert read_manifest(tmp_path, "test").class_counts == (6, 6)


def test_table_without_labels_is_refused(tmp_path):
    shutil.copy(ROOT / "dataset" / "README.md", tmp_path / "1.jpg")
    (tmp_path / "images.csv").write_text("TRAIN,1.jpg,\n")
    arguments = ["--dataset_dir", tmp_path / "images.csv", "--tfrecord_dir", tmp_path / "shards"]
    with pytest.raises(DataError, match="all labels are empty"):
        main(*arguments, "--tfrecord_filename", "train", "--label_separator", "|")
