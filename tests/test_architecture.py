"""The table of who may import whom, and other promises that the tree makes."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("library/**/*.py"), *ROOT.glob("project/**/*.py")]
)
ENTRIES = {"run", "convert_dataset"}


def imports_of(path):
    """The dotted names that a module imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            # `from library.training import snapshots` imports a module too.
            yield from (f"{node.module}.{each.name}" for each in node.names)


def is_allowed(path, name):
    top, room = name.split(".")[0], ".".join(name.split(".")[:2])
    if top in ENTRIES:
        return False
    if path.parts[0] == "library" and top == "project":
        return False
    inside = {"library.dataset", "library.configuration", "library.training", "library.evaluation"}
    if path.parts[:2] == ("library", "dataset"):
        return room not in inside - {"library.dataset"}
    if path.parts[:2] == ("library", "configuration"):
        return room not in inside - {"library.configuration"}
    if path.parts[0] == "library":
        return room != "library.configuration"
    return True


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    forbidden = sorted({name for name in imports_of(path) if not is_allowed(path, name)})
    assert not forbidden


def test_the_table_forbids_what_it_should():
    for path, name in (
        ("library/choices.py", "project.settings"),
        ("library/dataset/records.py", "library.training.loop"),
        ("library/dataset/records.py", "library.configuration.keys"),
        ("library/configuration/keys.py", "library.dataset.records"),
        ("library/training/loop.py", "library.configuration"),
        ("project/inputs.py", "run"),
    ):
        assert not is_allowed(Path(path), name), (path, name)
    assert is_allowed(Path("project/inputs.py"), "library.dataset.records")
    assert is_allowed(Path("library/training/loop.py"), "library.evaluation.measuring")


def test_only_three_places_see_the_settings_whole():
    seen = {str(path) for path in MODULES if "project.settings" in set(imports_of(path))}
    assert seen <= {"run.py", "convert_dataset.py", "project/assembly.py"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=str)
def test_every_init_is_a_docstring_and_nothing_else(path):
    tree = ast.parse((ROOT / path).read_text())
    assert ast.get_docstring(tree)
    # The registry of networks is the one exception.
    assert len(tree.body) == 1 or str(path) == "project/networks/__init__.py"


def test_every_room_has_its_tests():
    rooms = {path.stem for path in MODULES} - {"__init__"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    # Networks are tested in test_networks.py, commands in test_run.py: all of them, by name.
    families = {path.stem for path in ROOT.glob("project/networks/*.py")}
    commands = {path.stem for path in ROOT.glob("project/commands/*.py")}
    assert rooms - tests - families - commands == set()
