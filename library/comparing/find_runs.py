"""The runs to compare: folders of runs, and those inside the folders of experiments."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os.path import commonpath
from pathlib import Path

from library.errors import DataError
from library.files import current_folder
from library.messages import listed
from library.reporting.runs import Run, read_runs

# Folders of an experiment's runs: `seed_0`, `fold_1`, `trials/0007`.
EXPERIMENT_PARTS = re.compile(r"(?:seed|fold)_\d+|trials|\d+")


def find_runs(folders: Sequence[str | Path], parent: Path) -> tuple[list[Run], list[str], Path]:
    """Read the runs to compare.

    Args:
        folders: The runs, and experiments of several seeds, folds or trials; if there are none, all
            folders in `parent`.
        parent: The folder that usually holds the runs.

    Returns:
        The runs; a line for each folder that is not a run; the folder that holds the runs.

    Raises:
        DataError: No folder is a run.
    """
    parent = Path(folders[0]).parent if folders else parent
    if not folders and parent.is_dir():
        folders = sorted(each for each in parent.iterdir() if each.is_dir())
    # A pattern such as out/* also names files, such as the page of the last comparison.
    named = [each for each in map(Path, folders) if not each.is_file()]
    found = {path.resolve(): path for each in named for path in run_folders(each)}
    runs, skipped = read_runs(found.values())
    if not runs:
        reason = skipped[0].removeprefix("skipped: ") if skipped else f"none in {parent}"
        raise DataError(f"no run to compare: {reason}")
    return runs, skipped, parent


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of an experiment's runs; the folder itself if it is none."""
    inner = list(_inner_runs(folder))
    return inner if inner and not _has_snapshot(folder) else [folder, *inner]


def _inner_runs(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    parts = (
        each for each in folder.iterdir() if EXPERIMENT_PARTS.fullmatch(each.name) and each.is_dir()
    )
    for each in sorted(parts, key=lambda path: (len(path.name), path.name)):
        inner = list(_inner_runs(each))
        if _has_snapshot(each) or (not inner and (each / "project.yaml").is_file()):
            yield each
        yield from inner


def _has_snapshot(folder: Path) -> bool:
    return current_folder(folder / "best").is_dir()


def run_names(runs: Iterable[Run]) -> list[str]:
    """Return the runs' folders, without the path that they have in common."""
    folders = [run.folder for run in runs]
    if len({each.is_absolute() for each in folders}) > 1:
        return list(map(str, folders))
    common = Path(commonpath([each.parent for each in folders]))
    if common == Path(common.anchor):
        return [str(each) if common.anchor else each.as_posix() for each in folders]
    return [each.relative_to(common).as_posix() or str(each) for each in folders]


def data_warnings(runs: Sequence[Run]) -> list[str]:
    """Return a line if runs were trained on different images, so that no result says who is better.

    A run may even have learned what another is validated on. The folds of a cross-validation differ
    as they should.
    """
    folds = [run.settings.get("fold", "null") for run in runs]
    groups: dict[str, dict[str, list[str]]] = {}
    for name, run, fold in zip(run_names(runs), runs, folds, strict=True):
        if run.training_data is not None:
            splits = groups.setdefault("" if "null" in folds else fold, {})
            splits.setdefault(run.training_data, []).append(name)
    different = max(groups.values(), key=len, default={})
    if len(different) < 2:
        return []
    one, other = map(listed, islice(different.values(), 2))
    return [
        f"the runs were trained on {len(different)} different training splits (one: {one}; "
        f"another: {other}): their results can't be compared"
    ]
