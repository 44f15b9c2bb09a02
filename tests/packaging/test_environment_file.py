"""pyproject.toml is the one list of dependencies; what repeats it must agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What `make` sets up besides: `gpu` and `remote` are for machines that have them.
EXTRAS = [
    package
    for extra in ("litert", "onnx", "serve", "develop")
    for package in PROJECT["optional-dependencies"][extra]
]
LOCK = (ROOT / "requirements.lock").read_text()


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower()


def test_the_conda_environment_has_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    wanted = PROJECT["dependencies"] + EXTRAS
    assert sorted(pip["pip"]) == sorted(wanted)


def test_what_the_user_asked_for_is_there():
    names = {name_of(each) for each in PROJECT["dependencies"]}
    assert names >= {"tensorflow", "tensorflow-hub", "pyyaml", "pillow", "tqdm"}


def test_the_lock_holds_every_dependency_with_hashes_and_no_address():
    locked = {name_of(line) for line in LOCK.splitlines() if re.match(r"[a-z]", line)}
    wanted = PROJECT["dependencies"] + EXTRAS
    assert {name_of(each) for each in wanted} <= locked
    assert "://" not in LOCK
    assert not [
        line
        for line in LOCK.splitlines()
        if line.strip().startswith("-") and not line.strip().startswith("--hash=sha256:")
    ]
    entries = re.split(r"\n(?=[a-z])", LOCK)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_readme_says_why_each_dependency_is_there():
    readme = (ROOT / "README.md").read_text()
    missing = [each for each in PROJECT["dependencies"] if f"`{name_of(each)}`" not in readme]
    assert not missing


def test_every_supported_python_is_tried_by_the_workflow():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert pythons == ["3.11", "3.12", "3.13"]
    commands = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert ".ci/run" in commands
