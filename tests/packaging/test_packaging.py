"""`make dist`: what is built here is installed elsewhere; it converts, trains, evaluates there."""

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import COLORS, ROOT, write_colors

YAML = {"project.yaml", "hyperparameters.yaml"}
NOT_PACKED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")


def run_in(folder, *command, **environ):
    """Run a command in a folder. Give what it printed."""
    done = subprocess.run(command, cwd=folder, env=environ or None, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with wheel and source package, built as by `make dist`; nothing is downloaded."""
    source = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        # As a person has it who takes the project in use, without images, runs and .venv.
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in ("library", "project", "tests"):
            shutil.copytree(path, source / path.name, ignore=NOT_PACKED)
    (line,) = [each for each in (ROOT / "Makefile").read_text().splitlines() if "-m build" in each]
    run_in(source, sys.executable, *line.split()[1:])
    return source / "dist"


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory):
    """A folder that the wheel was installed into, with its commands in bin/."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    # Whichever of the two set .venv up.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if shutil.which("uv"):
        pip = ["uv", "pip"]
    run_in(folder, *pip, "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


@pytest.mark.slow
def test_a_package_holds_all_that_the_project_needs(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        packed = {each for each in file.namelist() if ".dist-info/" not in each}
    wanted = {
        str(path.relative_to(ROOT))
        for room in ("library", "project")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == wanted | YAML | {"run.py", "convert_dataset.py"}
    assert len(list(built.glob("*.tar.gz"))) == 1


@pytest.mark.slow
def test_an_installed_project_converts_trains_and_evaluates(installed, tmp_path):
    # The path of the packages installed here stands for the dependencies installed there.
    def command(name, *arguments):
        script = installed / "bin" / name
        return run_in(tmp_path, script, *arguments, PYTHONPATH=str(installed), PATH="/usr/bin:/bin")

    write_colors(tmp_path / "photos", 12)
    split = "--split=validation=0.25,test=0.25"
    said = command(
        "convert-dataset", "--dataset_dir=photos", split, "--tfrecord_dir=dataset", "--num_shards=1"
    )
    assert f"images of {len(COLORS)} classes" in said
    # Sets, and what is in them, from the YAML files that came along.
    options = ("--config_set=thinkpadx201t", "--image_size=4", "--train_epochs=1")
    best = json.loads(command("run", *options))
    assert best["epoch"] == 1
    assert json.loads(command("run", "evaluate", *options))["epoch"] == 1
    assert "train_batch_size: 10" in (tmp_path / "out/current/project.yaml").read_text()


def test_the_two_files_of_the_current_folder_come_first(tmp_path, monkeypatch):
    from project.settings import read_settings

    monkeypatch.chdir(tmp_path)
    settings = read_settings(["--config_set=gtx1080ti"])
    assert settings.project.train_batch_size == 512
    assert settings.values["config_file"].value == str(ROOT / "project.yaml")
    assert settings.project.hyperparameter_file == str(ROOT / "hyperparameters.yaml")

    (tmp_path / "project.yaml").write_text("mine: {train_epochs: 7}")
    settings = read_settings(["--config_set=mine"])
    assert settings.project.train_epochs == 7
    assert settings.project.hyperparameter_file == str(ROOT / "hyperparameters.yaml")
    (tmp_path / "hyperparameters.yaml").write_text("default: {learning_rate: 0.125}")
    assert read_settings([]).hyperparameters.learning_rate == 0.125
