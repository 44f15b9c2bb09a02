import os
import shutil

import pytest

from library.errors import UserError
from library.training.run_folder import check_space, locked_run_folder, start_run_folder


def test_the_settings_are_written(tmp_path):
    assert start_run_folder(tmp_path / "run", {"a.yaml": "1"}, "auto") is None
    assert start_run_folder(tmp_path / "run", {"a.yaml": "2"}, "auto") is None
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"


def test_never_moves_the_earlier_run_aside_whole(tmp_path):
    for number in (0, 1, 2):
        aside = start_run_folder(tmp_path / "run", {"a.yaml": str(number)}, "never")
        assert aside == (tmp_path / f"run.{number}" if number else None)
    assert (tmp_path / "run.1" / "a.yaml").read_text() == "0"
    assert (tmp_path / "run.2" / "a.yaml").read_text() == "1"
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"


def test_a_second_run_is_refused(tmp_path):
    folder = tmp_path / "out" / "run"
    message = rf"out/run is in use by process {os.getpid()} on .*or choose another --run_dir"
    with (
        locked_run_folder(folder),
        pytest.raises(UserError, match=message),
        locked_run_folder(folder),
    ):
        pass


def test_too_small_a_disk_is_told_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check_space(tmp_path / "not" / "yet", 50_000_000, 20_000_000, 3)
    with pytest.raises(UserError, match=r"has 500 MB left, and this run needs about 1,1\d\d MB"):
        check_space(tmp_path / "not" / "yet", 200_000_000, 100_000_000, 3)
