"""Commands work on local copies of what settings name by URLs."""

from pathlib import Path

import pytest

from library.configuration.output import read_resolved
from library.dataset.storage import read_url
from library.errors import CheckpointError
from library.remote_runs import uploads
from library.remote_runs.generations import RemoteFolder
from project.run_urls import local_copies
from project.settings import read_settings
from run import COMMANDS

RUN = "memory://bucket/runs/a"

pytestmark = pytest.mark.usefixtures("memory_store", "in_root")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(uploads, "_POLL_SECONDS", 0.05)


def copies(*words):
    settings = read_settings([*words], COMMANDS)
    return local_copies(settings, settings.command)


def train(url=RUN):
    with copies("--run_dir", url) as settings:
        Path(settings.project.best_model_dir).mkdir(parents=True)
        Path(settings.project.best_model_dir, "classes.json").write_text("[]", encoding="utf-8")
        Path(settings.project.run_dir, "project.yaml").write_text(
            settings.project_yaml(), encoding="utf-8"
        )
        Path(settings.project.cache_dir).mkdir()
        Path(settings.project.cache_dir, "images").touch()
    return settings


def test_training_writes_into_a_copy_and_records_urls(tmp_path):
    settings = train()
    assert Path(settings.project.run_dir).is_relative_to(tmp_path)
    assert settings.as_written(settings.project.model_dir) == f"{RUN}/checkpoints"
    assert settings.as_json()["best_model_dir"] == f"{RUN}/best"
    assert read_resolved(Path(settings.project.run_dir, "project.yaml"))["run_dir"] == RUN
    folder = RemoteFolder(RUN)
    assert set(folder.read(folder.names()[0]).files) == {"best/classes.json", "project.yaml"}


def test_commands_read_a_copy_and_add_to_the_run(tmp_path):
    train()
    with copies("evaluate", "--run_dir", f"{RUN}/") as settings:
        assert Path(settings.project.best_model_dir, "classes.json").is_file()
        Path(settings.project.run_dir, "result.json").write_text("1", encoding="utf-8")
    assert read_url(f"{RUN}/result.json") == b"1"
    with copies("predict", "--checkpoint", f"{RUN}/best", "--run_dir", str(tmp_path)) as settings:
        assert Path(settings.project.checkpoint, "classes.json").is_file()
    with copies("export", "--export_dir", "memory://bucket/exports") as settings:
        Path(settings.project.export_dir, "model").mkdir(parents=True)
        Path(settings.project.export_dir, "model", "graph.pb").write_text("2", encoding="utf-8")
    assert read_url("memory://bucket/exports/model/graph.pb") == b"2"


def test_dry_run_uploads_nothing():
    with copies("--run_dir", RUN, "--dry_run") as settings:
        Path(settings.project.run_dir).mkdir(parents=True)
        Path(settings.project.run_dir, "x").touch()
    assert RemoteFolder(RUN).names() == []


def test_compared_runs_keep_their_names():
    train()
    train(f"{RUN}2")
    with copies("compare", RUN, f"{RUN}2") as settings:
        one, two = map(Path, settings.paths)
    assert (one.name, two.name, one.parent) == ("a", "a2", two.parent)


def test_nothing_at_a_checkpoint(tmp_path):
    arguments = ["--checkpoint_path", f"{RUN}/none", "--run_dir", str(tmp_path)]
    with pytest.raises(CheckpointError, match=f"{RUN}/none"), copies(*arguments):
        pass
