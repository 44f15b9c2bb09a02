"""What a kill would leave: a copy of a folder before each change that is made in it."""

import contextlib
import shutil
import sys
from pathlib import Path

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_looking, _installed = [], []


def _hook(event, arguments):
    if not _looking:
        return
    if event == "open":
        mode = arguments[1]
        if not isinstance(mode, str) or not set(mode) & set("awx"):
            return
    elif event not in _CHANGES:
        return
    # The hook itself makes changes.
    look = _looking.pop()
    look()
    _looking.append(look)


@contextlib.contextmanager
def watched(folder, copies):
    """Yield a list that gets a copy of `folder` for each state that the block leaves it in."""
    # An audit hook can't be removed.
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    states, found = [], []

    def look():
        state = contents(folder)
        if state not in states:
            states.append(state)
            found.append(Path(shutil.copytree(folder, Path(copies) / str(len(states)))))

    _looking.append(look)
    try:
        yield found
    finally:
        _looking.clear()
    look()


def contents(folder):
    """Return all that is below a folder: path → bytes, or None for a folder."""
    return {
        each.relative_to(folder).as_posix(): None if each.is_dir() else each.read_bytes()
        for each in sorted(Path(folder).rglob("*"))
    }
