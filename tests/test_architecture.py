"""The order of the rooms, computed from the imports, and each leaf cut off."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room imports only from rooms earlier in this order, which library/__init__.py explains.
GROUND_FLOOR = ("logging", "errors", "messages", "files", "limits", "tensorflow_import")
CORE = (
    *("configuration", "dataset", "figures", "inputs", "augmentation", "saving", "models"),
    *("training", "evaluation"),
)
# Each leaf, the leaves that it builds on, and the commands that need it.
LEAVES = {
    "prediction": ((), ("predict",)),
    "explaining": (("prediction",), ("explain",)),
    "describing": ((), ("describe", "preview", "benchmark_inputs", "find_learning_rate")),
    "machine": ((), ()),
    "diagnosis": (("machine", "describing"), ("doctor",)),
    "profiling": (("machine", "describing", "diagnosis"), ("profile",)),
    "cross_validation": (("prediction",), ("cross_validate",)),
    "reporting": ((), ()),
    "comparing": (("reporting",), ("compare",)),
    "serving": (("prediction", "explaining"), ("serve",)),
    "export": (("prediction",), ("export",)),
    "distributed": ((), ()),
    "cleaning": (("prediction",), ("clean",)),
    "robustness": ((), ()),
    "selection": (("prediction",), ("select",)),
    "tracking": ((), ("track",)),
    "search": ((), ("search",)),
    "beam": (("prediction",), ()),
    "remote_runs": ((), ()),
    "streaming": ((), ()),
}
ORDER = (*GROUND_FLOOR, *CORE, *LEAVES)
# These three stand side by side.
SIDE_BY_SIDE = {"configuration", "dataset", "figures"}


def modules():
    paths = [*ROOT.glob("*.py"), *ROOT.glob("library/**/*.py"), *ROOT.glob("project/**/*.py")]
    names = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in paths
    }
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()


def imports_of(path):
    """The dotted names that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{each.name}" for each in node.names)


def imported_modules(path):
    """The project's own modules that a module imports."""
    for name in imports_of(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            yield name


def room_of(name):
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] if top == "library" else top


def edges_among(group_of):
    edges = {}
    for name, path in MODULES.items():
        targets = {
            group_of(each) for each in imported_modules(path) if each not in ("library", "project")
        }
        edges.setdefault(group_of(name), set()).update(targets - {group_of(name)})
    return edges


def find_circle(edges):
    """A list of nodes that import each other in turn, or []."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        path.append(node)
        for target in sorted(edges.get(node, ())):
            if circle := visit(target):
                return circle
        path.pop()
        done.add(node)
        return []

    for node in sorted(edges):
        if circle := visit(node):
            return circle
    return []


def test_find_circle():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_modules_form_no_circle():
    assert find_circle(edges_among(lambda name: name)) == []


def test_rooms_form_no_circle():
    assert find_circle(edges_among(room_of)) == []


def test_order_names_every_room():
    rooms = {room_of(name) for name in MODULES if name.startswith("library.")} - {""}
    assert rooms == set(ORDER)


def is_allowed(room, target):
    """Whether a module in a room of library may import from another room."""
    if room == target:
        return True
    if target not in ORDER or {room, target} <= SIDE_BY_SIDE:
        return False
    if target in LEAVES:
        return room in LEAVES and target in LEAVES[room][0]
    return room in LEAVES or ORDER.index(target) < ORDER.index(room)


@pytest.mark.parametrize(
    ("room", "target", "allowed"),
    [
        ("dataset", "files", True),
        ("files", "dataset", False),
        ("dataset", "configuration", False),
        ("training", "evaluation", False),
        ("training", "prediction", False),
        ("serving", "prediction", True),
        ("prediction", "serving", False),
        ("reporting", "training", True),
        ("saving", "project", False),
    ],
)
def test_is_allowed(room, target, allowed):
    assert is_allowed(room, target) == allowed


def test_rooms_import_earlier_rooms_only():
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if name.startswith("library.")
        for target in imported_modules(path)
        if target != "library" and not is_allowed(room_of(name), room_of(target))
    ]
    assert wrong == []


def test_library_never_imports_project():
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if name == "library" or name.startswith("library.")
        for target in imports_of(path)
        if target.split(".")[0] in ("project", "run", "convert_dataset")
    ]
    assert wrong == []


def cut(folder, leaf):
    """Delete a leaf, and those that build on it, from a copy of the tree."""
    names = [leaf, *(name for name, (bases, _) in LEAVES.items() if leaf in bases)]
    for name in names:
        shutil.rmtree(folder / "library" / name)
        for command in LEAVES[name][1]:
            (folder / "project" / "commands" / f"{command}.py").unlink()
            run = folder / "run.py"
            text = run.read_text(encoding="utf-8")
            line = re.compile(rf'^    "{command}".*\n', re.MULTILINE)
            assert line.search(text), f"no line for {command} in COMMANDS"
            run.write_text(line.sub("", text), encoding="utf-8")


def run_in(folder, *command_lines):
    """Run run.py in a copy of the tree, once for each command line. Return what it wrote."""
    # One process, because each one imports TensorFlow again.
    lines = [list(map(str, each)) for each in command_lines]
    code = f"import run\nfrom library.errors import run_main\nfor each in {lines}:\n"
    code += "    assert run_main(run.main, each, 'run.py') == 0"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("leaf", LEAVES)
def test_leaf_can_be_cut_off(leaf, colors, tmp_path):
    folder = tmp_path / "clone"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("library", "project"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.yaml")]:
        shutil.copy(path, folder)
    cut(folder, leaf)
    text = run_in(folder, ["--help"])
    for command in LEAVES[leaf][1]:
        assert not re.search(rf"^  {command}\b", text, re.MULTILINE), text
    options = [
        "--data_dir",
        colors,
        "--model",
        "simple",
        "--image_size",
        8,
        "--batch_size",
        16,
        "--train_epochs",
        1,
    ]
    text = run_in(folder, options, ["evaluate", *options, "--split", "validation"])
    assert (folder / "out" / "current" / "best" / "metrics.json").is_file()
    assert "accuracy" in text
