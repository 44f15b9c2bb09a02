"""The package of `make dist` works where it is installed; lists of dependencies agree."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

from tests.conftest import ROOT, write_colors

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What `make` installs in addition; `gpu` and `remote` are for machines that have them.
EXTRAS = [
    package
    for extra in (
        "beam",
        "litert",
        "mlflow",
        "onnx",
        "presets",
        "search",
        "serve",
        "wandb",
        "develop",
    )
    for package in PROJECT["optional-dependencies"][extra]
]
LOCK = (ROOT / "requirements.lock").read_text()


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower()


def test_conda_environment_has_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    wanted = {*PROJECT["dependencies"], *EXTRAS}
    assert sorted(pip["pip"]) == sorted(wanted)


def test_required_packages_are_declared():
    names = {name_of(each) for each in PROJECT["dependencies"]}
    assert names >= {"tensorflow", "tensorflow-hub", "pyyaml", "pillow", "tqdm"}


def test_lock_has_every_dependency_with_hashes_and_no_url():
    locked = {name_of(line) for line in LOCK.splitlines() if re.match(r"[a-z]", line)}
    wanted = {*PROJECT["dependencies"], *EXTRAS}
    assert {name_of(each) for each in wanted} <= locked
    assert "://" not in LOCK
    assert not [
        line
        for line in LOCK.splitlines()
        if line.strip().startswith("-") and not line.strip().startswith("--hash=sha256:")
    ]
    entries = re.split(r"\n(?=[a-z])", LOCK)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_readme_names_every_dependency():
    readme = (ROOT / "README.md").read_text()
    missing = [each for each in PROJECT["dependencies"] if f"`{name_of(each)}`" not in readme]
    assert not missing


def test_workflow_covers_every_supported_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert pythons == ["3.11", "3.12", "3.13"]
    commands = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert ".ci/run" in commands


YAML = {"project.yaml", "hyperparameters.yaml"}
NOT_PACKED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")


def run_in(folder, *command, **environ):
    """Run a command in a folder. Return its stdout."""
    done = subprocess.run(command, cwd=folder, env=environ or None, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with a wheel and a source package, built as by `make dist` without downloads."""
    source = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        # A clone without images, runs and .venv.
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in ("library", "project", "tests"):
            shutil.copytree(path, source / path.name, ignore=NOT_PACKED)
    (line,) = [each for each in (ROOT / "Makefile").read_text().splitlines() if "-m build" in each]
    run_in(source, sys.executable, *line.split()[1:])
    return source / "dist"


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory):
    """A folder with the installed wheel; its commands are in bin/."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    # Whichever of the two created .venv.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if shutil.which("uv"):
        pip = ["uv", "pip"]
    run_in(folder, *pip, "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


@pytest.mark.slow
def test_package_holds_all_modules_and_settings(built):
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
def test_installed_package_converts_and_trains(installed, tmp_path):
    # The packages of this environment stand for the dependencies.
    def command(name, *arguments):
        script = installed / "bin" / name
        return run_in(tmp_path, script, *arguments, PYTHONPATH=str(installed), PATH="/usr/bin:/bin")

    write_colors(tmp_path / "photos", 12)
    split = "--split=validation=0.25,test=0.25"
    command(
        "convert-dataset", "--dataset_dir=photos", split, "--tfrecord_dir=dataset", "--num_shards=1"
    )
    assert (tmp_path / "dataset" / "test" / "test.manifest.json").is_file()
    # The sets come from the YAML files in the package.
    options = ("--config_set=thinkpadx201t", "--model=simple", "--image_size=4", "--train_epochs=1")
    best = json.loads(command("run", *options))
    assert best["epoch"] == 1
    assert "train_batch_size: 10" in (tmp_path / "out/current/project.yaml").read_text()


def test_settings_files_of_the_working_directory_come_first(tmp_path, monkeypatch):
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
