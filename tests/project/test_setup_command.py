import pytest
from PIL import Image

from library.errors import SettingsError
from project.commands.setup import read_data
from project.settings import read_settings
from tests.conftest import write_colors


def project(*arguments):
    return read_settings([str(each) for each in arguments]).project


def test_what_is_left_out_is_said_of_every_split(tmp_path, capsys):
    for split in ("train", "validation"):
        write_colors(tmp_path / split, 1)
    Image.new("RGB", (5, 5)).save(tmp_path / "validation" / "stray.png")
    settings = project("--data_dir", tmp_path, "--data_format", "folder")
    splits = read_data(settings, "train", "validation")
    assert [each.examples for each in splits] == [3, 3]
    _, *rest = capsys.readouterr().err.splitlines()
    (line,) = rest
    assert line.endswith("validation: left out, because they have no class: 1 file")


def test_a_class_that_looks_like_several_is_said(patches, capsys, tmp_path):
    image = patches / "images" / "TRAIN-3.png"
    rows = [f"TRAIN,{image},{each}\n" for each in ("red", "blue", "red|blue")]
    (tmp_path / "table.csv").write_text("".join(rows))
    read_data(project("--data_dir", tmp_path / "table.csv", "--data_format", "csv"), "train")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "the class 'red|blue' looks like several; in a CSV file --label_separator '|' divides it"
    )


def test_several_classes_are_read_from_a_csv_file_as_the_settings_say(patches, tmp_path):
    image = patches / "images" / "TRAIN-3.png"
    (tmp_path / "table.csv").write_text(f"part,picture,shows\ntrain,{image},red;blue\n")
    given = ["--data_format", "csv", "--label_separator", ";", "--csv_columns"]
    settings = project("--data_dir", tmp_path / "table.csv", *given, "part,picture,shows")
    (train,) = read_data(settings, "train")
    assert train.read(0).text == train.classes == ("blue", "red")


@pytest.mark.parametrize("option", ["--label_separator=|", "--csv_columns=a,b,c"])
def test_settings_for_csv_files_are_refused_for_other_data(colors, option):
    with pytest.raises(SettingsError, match="csv_columns and label_separator are for data_format"):
        read_data(project("--data_dir", colors, option), "train")
