"""The folders of one run: who writes there, whether there is room, and what an earlier run left."""

import contextlib
import shutil
from pathlib import Path

from library.errors import SettingsError, UserError
from library.files import explain_write_errors, locked, remove_partials, restore_folder, write_file
from library.saving.checkpoints import Checkpoints


@contextlib.contextmanager
def locked_run(paths, resume):
    """Keep other processes from training into any of the run's folders within the block.

    With resume "never" what an earlier run left is first moved aside, to `<folder>.1` or the next
    free number: nothing of it is lost. Returns the list of its new paths. Raises UserError, naming
    the process that trains into one of the folders.
    """
    _check_best(paths)
    run_lock, *inner_locks = _locks(paths)
    with _held(run_lock):
        aside = []
        if resume == "never":
            with _held(*inner_locks):
                aside = _move_aside(paths, [path for path, *_ in inner_locks])
        with _held(*inner_locks):
            yield aside


def write_texts(folder, texts):
    """Write the files `texts` (by name) into the run's folder, and remove what kills left there.

    Raises UserError if one can't be written; the old one is then intact.
    """
    for name in (*texts, "history.csv", "curves.svg"):
        remove_partials(folder, name)
    for name, text in texts.items():
        path = Path(folder) / name
        with explain_write_errors(path):
            write_file(path, text)


def check_space(paths, checkpoint_bytes, network_bytes, keep_checkpoint_max):
    """Raise UserError if a disk has less room than the run will still need on it.

    At most there are `keep_checkpoint_max` checkpoints and one being written, and the best snapshot
    and its successor. Those that are there already will go.
    """
    checkpoints, best = paths.checkpoints, paths.best
    needs = (
        (checkpoints, checkpoint_bytes, keep_checkpoint_max + 1, Checkpoints(checkpoints).paths()),
        (best, network_bytes, 2, [best]),
    )
    needed, first = {}, {}
    for folder, size, count, there in needs:
        disk = _disk_of(folder)
        first.setdefault(disk, folder)
        # Whatever is there, one more is written before an old one goes.
        more = max(size, count * size - sum(map(_bytes_below, there)))
        # A tenth more, for the history, TensorBoard's files and the file system itself.
        needed[disk] = needed.get(disk, 5e6) + 1.1 * more
    for disk, folder in first.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < needed[disk]:
            ways = "choose another --best_model_dir"
            if folder == checkpoints:
                ways = "choose another --run_dir, or lower --keep_checkpoint_max"
            raise UserError(
                f"the disk of {folder} has {free / 1e6:,.0f} MB left, and this run needs about "
                f"{needed[disk] / 1e6:,.0f} MB: make room, {ways}"
            )


def _check_best(paths):
    """Raise SettingsError if replacing the best snapshot would take anything else away."""
    best = Path(paths.best).absolute()
    for name, folder in (("run_dir", paths.run_dir), ("model_dir", paths.checkpoints)):
        if Path(folder).absolute().is_relative_to(best):
            raise SettingsError(
                f"best_model_dir {paths.best} is replaced whole with each better network, and "
                f"{name} {folder} is in it: choose another --best_model_dir"
            )


def _locks(paths):
    """Give (path, what it is for, option) for the lock of each folder that the run writes into."""
    run, checkpoints, best = map(Path, (paths.run_dir, paths.checkpoints, paths.best))
    return (
        # Beside the folders that are moved or replaced whole.
        (_beside(run), run, "--run_dir"),
        (checkpoints.absolute() / ".lock", checkpoints, "--model_dir"),
        (_beside(best), best, "--best_model_dir"),
    )


def _beside(folder):
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def _held(*locks):
    with contextlib.ExitStack() as stack:
        for path, folder, option in locks:
            stack.enter_context(locked(path, folder, f"wait for it, or choose another {option}"))
        yield


def _move_aside(paths, locks):
    """Move what an earlier run left, wherever that is. Give the list of its new paths.

    `locks` are the paths of those that may lie inside the run's folder.
    """
    run, best = Path(paths.run_dir), Path(paths.best)
    aside = []
    if any(each.is_file() and not each.name.endswith(".lock") for each in run.rglob("*")):
        aside.append(_free_name(run))
        run.rename(aside[0])
        for path in locks:
            # They went with it.
            if path.is_relative_to(run.absolute()):
                (aside[0] / path.relative_to(run.absolute())).unlink(missing_ok=True)
    # What is left was not inside. Other things may lie beside the checkpoints: they stay.
    if paths := Checkpoints(paths.checkpoints).paths():
        aside.append(_free_name(Path(paths.checkpoints)))
        aside[-1].mkdir()
        for path in paths:
            path.rename(aside[-1] / path.name)
    restore_folder(best)
    if best.is_dir():
        aside.append(_free_name(best))
        best.rename(aside[-1])
    return aside


def _free_name(folder):
    number = 1
    while (free := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return free


def _existing(folder):
    """Return the folder, or the nearest one above it that there is."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk_of(folder):
    return _existing(folder).stat().st_dev


def _bytes_below(folder):
    return sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file())
