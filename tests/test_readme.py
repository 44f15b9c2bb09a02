"""The README's promises that a machine can check."""

import re

from project.settings import read_settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python run\.py(.*)$", README, re.M)


def test_every_file_it_names_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_every_run_command_it_shows_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert COMMANDS
    for command in COMMANDS:
        read_settings(command.split("#")[0].split())


def test_every_make_target_it_shows_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"train", "test", "check"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
