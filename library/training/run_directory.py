"""The folders of one run: locked against other processes, checked for space, moved away."""

import contextlib
import itertools
import logging
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from library.configuration.output import read_resolved
from library.dataset.storage import local_path
from library.errors import CheckpointError, SettingsError, UserError
from library.files import explain_write_errors, locked, remove_partials, restore_folder, write_file
from library.saving.checkpoints import Checkpoints, read_state
from library.training.plan import RunPaths

logger = logging.getLogger(__name__)

# (lock file, locked folder, option that names the folder)
Lock = tuple[Path, Path, str]


@contextlib.contextmanager
def locked_run(paths: RunPaths, resume: str, *, is_chief: bool = True) -> Iterator[Sequence[Path]]:
    """Keep other processes from training into any of the run's folders within the block.

    Args:
        paths: The run's folders.
        resume: With "never", what an earlier run left is first moved to `<folder>.1` or the next
            free number, so that nothing of it is lost.
        is_chief: Whether this process writes; if not, nothing happens.

    Yields:
        The new paths of what was moved.

    Raises:
        CheckpointError: The run's folder, or that of the best snapshot, belongs to another run.
        UserError: Another process, which is named, trains into one of the folders.
        SettingsError: Replacing the best snapshot would remove another of the folders.
    """
    _check_best(paths)
    if not is_chief:
        yield ()
        return
    run_lock, *inner_locks = _locks(paths)
    with _held(run_lock):
        moved: list[Path] = []
        if resume == "never":
            with _held(*inner_locks):
                moved = _move_away(paths, [path for path, *_ in inner_locks])
        if moved:
            logger.info(f"The earlier run is now in {', '.join(map(str, moved))}")
        _check_owner(paths)
        with _held(*inner_locks):
            yield moved


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files, by name, into the run's folder, and remove what killed processes left there.

    Raises:
        UserError: One can't be written; the old one is then intact.
    """
    for name in (*texts, "history.csv", "curves.svg"):
        remove_partials(folder, name)
    for name, text in texts.items():
        path = Path(folder) / name
        with explain_write_errors(str(path)):
            write_file(path, text)


def bytes_of(variables: Iterable[Any]) -> int:
    """Return the size of variables in bytes."""
    return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in variables)


def check_space(
    paths: RunPaths, checkpoint_bytes: int, network_bytes: int, keep_checkpoint_max: int
) -> None:
    """Raise UserError if a disk has less space than the run will still need on it.

    Args:
        paths: The run's folders. What is in them already will be replaced.
        checkpoint_bytes: Size of a checkpoint, of which there are at most `keep_checkpoint_max`
            and one being written.
        network_bytes: Size of a snapshot, of which there are at most the best and its successor.
        keep_checkpoint_max: Number of checkpoints that are kept.
    """
    checkpoints, best = paths.checkpoints, paths.best
    needs = (
        (checkpoints, checkpoint_bytes, keep_checkpoint_max + 1, Checkpoints(checkpoints).paths()),
        (best, network_bytes, 2, [best]),
    )
    needed: dict[int, float] = {}
    first: dict[int, Path] = {}
    for folder, size, count, there in needs:
        disk = _disk_of(folder)
        first.setdefault(disk, folder)
        # However many exist, one more is written before an old one is removed.
        more = max(size, count * size - sum(map(_bytes_below, there)))
        # A tenth more, for the history, TensorBoard's files and the file system itself.
        needed[disk] = needed.get(disk, 5e6) + 1.1 * more
    for disk, folder in first.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < needed[disk]:
            advice = "choose another --best_model_dir"
            if folder == checkpoints:
                advice = "choose another --run_dir, or lower --keep_checkpoint_max"
            raise UserError(
                f"the disk of {folder} has {free / 1e6:,.0f} MB left, and this run needs about "
                f"{needed[disk] / 1e6:,.0f} MB: free some space, {advice}"
            )


def _check_best(paths: RunPaths) -> None:
    """Raise SettingsError if replacing the best snapshot would remove anything else."""
    best = Path(paths.best).absolute()
    for name, folder in (("run_dir", paths.run_dir), ("model_dir", paths.checkpoints)):
        if Path(folder).absolute().is_relative_to(best):
            raise SettingsError(
                f"best_model_dir {paths.best} is replaced whole with each improvement, and {name} "
                f"{folder} is in it: choose another --best_model_dir"
            )


def _check_owner(paths: RunPaths) -> None:
    """Raise CheckpointError if a folder to write into belongs to a run with other checkpoints."""
    run, checkpoints = Path(paths.run_dir), Path(paths.checkpoints).resolve()
    owned: list[tuple[str, Path, Path | None]] = []
    if (run / "history.csv").is_file():
        owned.append(("--run_dir", run, run))
    if not Path(paths.best).resolve().is_relative_to(run.resolve()):
        owned.append(("--best_model_dir", Path(paths.best), None))
    for option, folder, own_run in owned:
        settings = read_resolved(folder / "project.yaml")
        # A run may have been moved, with all that is in its folder.
        its_run = own_run or settings.get("run_dir")
        if not its_run:
            continue
        its_checkpoints = settings.get("model_dir") or local_path(its_run) / "checkpoints"
        its_checkpoints = local_path(its_checkpoints).resolve()
        if its_checkpoints != checkpoints and not _is_resumed(paths):
            raise CheckpointError(
                f"{folder} belongs to the run with checkpoints in {its_checkpoints}, and this one "
                f"has them in {paths.checkpoints}: choose another {option}"
            )


def _is_resumed(paths: RunPaths) -> bool:
    """Return whether the newest checkpoint says that it is of this run: it was moved alone."""
    for path in Checkpoints(paths.checkpoints).paths()[:1]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            its_run = local_path(read_state(path)["settings"]["run_dir"])
            return its_run.resolve() == paths.run_dir.resolve()
    return False


def _locks(paths: RunPaths) -> tuple[Lock, Lock, Lock]:
    """Return the lock of each folder that the run writes into."""
    run, checkpoints, best = map(Path, (paths.run_dir, paths.checkpoints, paths.best))
    return (
        # Beside the folder if it is moved or replaced whole.
        (_beside(run), run, "--run_dir"),
        (checkpoints.absolute() / ".lock", checkpoints, "--model_dir"),
        (_beside(best), best, "--best_model_dir"),
    )


def _beside(folder: Path) -> Path:
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def _held(*locks: Lock) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for path, folder, option in locks:
            stack.enter_context(
                locked(path, str(folder), f"wait for it, or choose another {option}")
            )
        yield


def _move_away(paths: RunPaths, locks: Sequence[Path]) -> list[Path]:
    """Move what an earlier run left, wherever that is. Return the new paths.

    Args:
        paths: The run's folders.
        locks: The lock files that may lie inside the run's folder.
    """
    run, checkpoints, best = map(Path, (paths.run_dir, paths.checkpoints, paths.best))
    moved = []
    if any(each.is_file() and not each.name.endswith(".lock") for each in run.rglob("*")):
        moved.append(_free_name(run))
        run.rename(moved[0])
        for path in locks:
            if path.is_relative_to(run.absolute()):
                # Moved with the folder.
                (moved[0] / path.relative_to(run.absolute())).unlink(missing_ok=True)
    # What is left was not inside. Other files may lie beside the checkpoints: they stay.
    if old_checkpoints := Checkpoints(checkpoints).paths():
        moved.append(_free_name(checkpoints))
        moved[-1].mkdir()
        for path in old_checkpoints:
            path.rename(moved[-1] / path.name)
    restore_folder(best)
    if best.is_dir():
        moved.append(_free_name(best))
        best.rename(moved[-1])
    return moved


def _free_name(folder: Path) -> Path:
    numbered = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
    return next(each for each in numbered if not each.exists())


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk_of(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _bytes_below(folder: Path) -> int:
    return sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file())
