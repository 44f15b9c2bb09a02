"""The folder of one run: its settings, and what to do with what an earlier run left there."""

from pathlib import Path

from library.files import write_file


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


def _free_name(folder):
    number = 1
    while (free := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return free
