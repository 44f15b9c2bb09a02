"""Dockerfile, compose file and workflow agree with the project and with each other."""

import re
import shlex
import tomllib

import pytest
import yaml

from project.settings import read_settings
from run import COMMANDS
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-gpu-remote.lock"]


def instructions(name):
    """Return the arguments of each instruction of that name."""
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.M)


def stage(name):
    """Return the instructions of a build stage."""
    return re.search(rf"^FROM \S+ AS {name}\n((?:(?!FROM ).*\n)*)", DOCKERFILE, re.M)[1]


def test_base_images_are_pinned_and_their_python_is_supported():
    images = dict(each.split("=", 1) for each in instructions("ARG") if "@" in each)
    stages = {line.split(" AS ")[1] for line in instructions("FROM")}
    bases = {line.split(" AS ")[0] for line in instructions("FROM")}
    assert bases - stages == {f"${{{name}}}" for name in images}
    assert all(re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", each) for each in images.values())
    assert re.match(r"python:3\.1[123]-slim-", images["PYTHON"])


def test_copied_files_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        path
        for line in instructions("COPY")
        if "--from" not in line
        for path in shlex.split(line)[:-1]
    }
    assert {"run.py", "library", "requirements.lock"} <= copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_installed_extras_are_all_but_gpu_and_develop():
    extras = dict(each.split("=", 1) for each in instructions("ARG") if "EXTRAS=" in each)
    named = {key: set(re.findall(r"--extra (\w+)", value)) for key, value in extras.items()}
    assert named == {
        "EXTRAS": set(PROJECT["optional-dependencies"]) - {"gpu", "develop"},
        "SERVE_EXTRAS": {"serve"},
    }
    assert "--require-hashes" in stage("packages")
    assert all(f"-c {path.name}" in stage("packages") for path in LOCKS)


def test_lock_of_gpu_and_remote_adds_to_the_other_lock():
    names = [set(re.findall(r"^([a-z][\w.-]*)==", path.read_text(), re.M)) for path in LOCKS]
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "gcsfs"} <= names[1]
    assert names[0] & names[1] == set()
    entries = re.split(r"\n(?=[a-z])", LOCKS[1].read_text())
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("target", ["cpu", "gpu", "serve"])
def test_image_runs_without_root_and_only_copies(target):
    assert re.search(rf"^FROM base AS {target}$", DOCKERFILE, re.M)
    assert re.search(r"^USER 1000", stage("base"), re.M)
    assert not re.search(r"^(RUN|USER|ADD)", stage(target), re.M)
    assert f"COPY --from={target}-packages" in stage(target)


def test_serve_listens_where_the_health_check_and_compose_connect():
    (port,) = re.findall(r"^EXPOSE (\d+)", stage("serve"), re.M)
    command = yaml.safe_load(re.search(r"^CMD (.+)", stage("serve"), re.M)[1])
    settings = read_settings(command[2:], COMMANDS).project
    assert (settings.host, str(settings.port)) == ("0.0.0.0", port)
    assert f"http://127.0.0.1:{port}/health" in stage("serve")
    assert SERVICES["serve"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_file_builds_targets_and_runs_commands():
    for service in SERVICES.values():
        target = service["build"]["target"]
        assert service["image"] == f"image-classification:{target}"
        assert stage(target)
        if "run.py" in service.get("command", ""):
            read_settings(service["command"][2:], COMMANDS)


def test_workflow_builds_every_target():
    workflow = yaml.safe_load((ROOT / ".github/workflows/container.yaml").read_text())
    job = workflow["jobs"]["container"]
    assert [*job["strategy"]["matrix"]["target"], "serve"] == ["cpu", "gpu", "serve"]
    assert job["steps"][-1]["run"].startswith(".ci/test_container ")
    assert "serve" in (ROOT / ".ci/test_container").read_text()
