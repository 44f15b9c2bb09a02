"""What most commands start with."""

import sys

import pytest
from PIL import Image

from library.errors import SettingsError
from project.commands import setup
from project.commands.setup import read_data, start_tensorflow
from project.settings import read_settings
from tests.conftest import ROOT, write_colors


def read_config(*arguments):
    return read_settings([str(each) for each in arguments]).project


def test_skipped_files_are_logged_for_every_split(tmp_path, capsys):
    for split in ("train", "validation"):
        write_colors(tmp_path / split, 1)
    Image.new("RGB", (5, 5)).save(tmp_path / "validation" / "stray.png")
    config = read_config("--data_dir", tmp_path, "--data_format", "folder")
    splits = read_data(config, "train", "validation")
    assert [each.examples for each in splits] == [3, 3]
    _, *rest = capsys.readouterr().err.splitlines()
    (line,) = rest
    assert "validation: skipped 1 file" in line


def test_joined_class_name_is_logged(patches, capsys, tmp_path):
    images = (patches / "images" / f"TRAIN-{number}.png" for number in (1, 2, 3))
    labels = ("red", "blue", "red|blue")
    rows = [f"TRAIN,{image},{each}\n" for image, each in zip(images, labels, strict=True)]
    (tmp_path / "table.csv").write_text("".join(rows))
    read_data(read_config("--data_dir", tmp_path / "table.csv", "--data_format", "csv"), "train")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "'red|blue'" in line
    assert "--label_separator '|'" in line


def test_multi_label_csv_is_read(patches, tmp_path):
    image = patches / "images" / "TRAIN-3.png"
    (tmp_path / "table.csv").write_text(f"part,picture,shows\ntrain,{image},red;blue\n")
    given = ["--data_format", "csv", "--label_separator", ";", "--csv_columns"]
    config = read_config("--data_dir", tmp_path / "table.csv", *given, "part,picture,shows")
    (train,) = read_data(config, "train")
    assert train.read(0).text == train.classes == ("blue", "red")


@pytest.mark.parametrize("option", ["--label_separator=|", "--csv_columns=a,b,c"])
def test_csv_settings_are_refused_for_other_data(colors, option):
    with pytest.raises(SettingsError, match=r"csv_columns and label_separator .* data_format"):
        read_data(read_config("--data_dir", colors, option), "train")


def test_too_many_gpus():
    with pytest.raises(SettingsError, match="num_gpus 1000"):
        start_tensorflow(read_config("--num_gpus", 1000))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_json_is_printed_unless_stdout_is_a_terminal(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    setup.print_result({"a": 1})
    assert capsys.readouterr().out == ("" if is_terminal else '{"a": 1}\n')


def test_commands_print_json_through_one_function():
    for path in (ROOT / "project" / "commands").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "setup.py" or "json.dumps" not in text, path
