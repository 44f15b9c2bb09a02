"""Links, files, commands, options and settings that the documentation names exist."""

import re
import shlex

import pytest

import convert_dataset
from library.configuration.reader import read_options
from project.settings import read_settings
from run import COMMANDS
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "dataset" / "README.md", *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Pipes, redirections and comments after a command.
SHELL = re.compile(r"\s(?:[|>&;].*|#.*)$")
OPTION = re.compile(r"(?<!\S)--(?:no-)?([a-z]\w*)")
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, *languages):
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def spans(page):
    """Return the inline code of a page, each piece on one line."""
    text = BLOCK.sub("", page.read_text())
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", text)]


def commands(page, program):
    """Yield the arguments of each command of a program that the page shows."""
    shown = [*blocks(page, "", "sh", "yaml"), *spans(page)]
    for line in "\n".join(shown).replace("\\\n", " ").splitlines():
        found = re.search(rf"(?:^|\s)python {re.escape(program)}(?: (.*))?$", line)
        # Commands with an ellipsis are incomplete.
        if found and "…" not in line:
            words = SHELL.sub("", " " + (found[1] or "")).replace("$split", "train")
            yield shlex.split(words)


@EACH_PAGE
def test_linked_files_exist(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@EACH_PAGE
def test_named_modules_exist(page):
    named = [
        each for each in spans(page) if re.fullmatch(r"(project|library|benchmarks)/\S+", each)
    ]
    assert [each for each in named if not (ROOT / each).exists()] == []


@EACH_PAGE
def test_shown_commands_are_valid(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page, "run.py"):
        # Sets that the page asks the reader to write are tested below.
        if "fine_tune" in words:
            words = [each for each in words if each not in ("--hyperparameter_set", "fine_tune")]
        read_settings(words, COMMANDS)
    for words in commands(page, "convert_dataset.py"):
        read_options(convert_dataset.Settings, words, convert_dataset.PROGRAM)


def test_commands_are_found():
    found = {str(each.relative_to(ROOT)): list(commands(each, "run.py")) for each in PAGES}
    assert [] in found["README.md"]
    assert ["predict", "photos/"] in found["README.md"]
    assert ["compare", "out/*"] in found["docs/evaluation.md"]
    assert ["--data_dir=dataset", "--run_dir=out/cluster", "--train_epochs=90"] in found[
        "docs/cluster.md"
    ]
    assert any(
        {"fine_tune", "--checkpoint_path"} <= set(each) for each in found["docs/transfer.md"]
    )
    assert any("inspect" in each for each in commands(ROOT / "README.md", "convert_dataset.py"))


@EACH_PAGE
def test_named_options_exist(page):
    converter = read_options(convert_dataset.Settings, ["--help"], convert_dataset.PROGRAM)
    helps = converter.answer + read_settings(["--help"]).answer
    known = set(re.findall(r"--(?:\[no-\])?([a-z]\w*)", helps))
    known |= {"all", "gpus", "images"}  # of dataset/make_sample.py, of srun, of a benchmark
    ours = [each for each in spans(page) if not each.startswith(("conda ", "docker ", "gcloud "))]
    named = {name for each in ours for name in OPTION.findall(each)}
    assert named - known == set()


@EACH_PAGE
def test_shown_settings_are_valid(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for text in blocks(page, "yaml"):
        if "apiVersion" in text or "workerPoolSpecs" in text:
            continue  # tests/distributed/test_cluster.py has those.
        if not re.search(r"^ +\w+:", text, re.M):
            text = "default:\n" + re.sub(r"^", "  ", text, flags=re.M)
        (tmp_path / "sets.yaml").write_text(text)
        chosen = re.findall(r"^(\w+):", text, re.M)[-1]
        kind = "config" if "batch_size" in text else "hyperparameter"
        words = [f"--{kind}_file={tmp_path / 'sets.yaml'}", f"--{kind}_set={chosen}"]
        if chosen.endswith("_search"):
            words = ["search", words[0], f"--search_space={chosen}"]
        read_settings(words, COMMANDS)


def test_code_blocks_are_found():
    for kind in ("yaml", "python"):
        assert any(list(blocks(page, kind)) for page in PAGES)


@EACH_PAGE
def test_shown_programs_compile(page):
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


@EACH_PAGE
def test_shown_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    shown = "\n".join([*blocks(page, "sh"), *spans(page)])
    targets = set(re.findall(r"^\s*make ([a-z_-]+)", shown, re.M))
    assert targets if page == ROOT / "README.md" else True
    assert [each for each in targets if not re.search(rf"^{each}:", makefile, re.M)] == []


def test_make_help_lists_every_target_and_clean_spares_runs():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split()
    assert re.findall(r"^([a-z_-]+):[^#]*## \w", makefile, re.M) == targets
    deleted = re.search(r"^clean:.*\n\t(.+)$", makefile, re.M)[1].split()
    assert not {"out", "out/", "dataset", "."} & set(deleted)
