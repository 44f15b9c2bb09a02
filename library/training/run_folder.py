"""The folder of one run: who writes there, whether there is room, and what an earlier run left."""

import shutil
from pathlib import Path

from library.errors import UserError
from library.files import write_file
from library.locks import locked


def start_run_folder(folder, texts, resume):
    """Write the files `texts` (by name) into the run's folder.

    With resume "never" an earlier run's folder is first moved aside, to `<folder>.1` or the next
    free number, whole: nothing of it is lost. Gives its new path, or None.
    """
    folder = Path(folder)
    aside = None
    if resume == "never" and folder.is_dir() and any(folder.iterdir()):
        aside = _free_name(folder)
        folder.rename(aside)
    for name, text in texts.items():
        write_file(folder / name, text)
    return aside


def locked_run_folder(folder):
    """Keep other processes from training into the same folder within the block.

    The lock is on a file beside the folder. Raises UserError, naming the process that holds it.
    """
    folder = Path(folder)
    path = folder.with_name(f".{folder.name}.lock")
    return locked(path, folder, "wait for it, or choose another --run_dir")


def check_space(folder, checkpoint_bytes, network_bytes, keep_checkpoint_max):
    """Raise UserError if the disk below `folder` has less room than the run will need.

    At most there are `keep_checkpoint_max` checkpoints and one being written, and the best snapshot
    and its successor.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    # A tenth more, for the history, TensorBoard's files and the file system itself.
    needed = 1.1 * ((keep_checkpoint_max + 1) * checkpoint_bytes + 2 * network_bytes) + 5e6
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB left, and this run needs about "
            f"{needed / 1e6:,.0f} MB: make room, choose another --run_dir, or lower "
            "--keep_checkpoint_max"
        )


def _free_name(folder):
    number = 1
    while (free := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return free
