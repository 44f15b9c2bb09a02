"""Paths as people write them: `~`, `~user`, `$NAME` and `${NAME}` are expanded as a shell does.

os.path.expandvars would leave a variable that is not set, and a run would write into a folder
named `$SCRATCH`.
"""

import os
import re
from pathlib import Path
from string import Template

from library.errors import SettingsError
from library.messages import shown

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(path: str) -> bool:
    """Return whether a path is a URL, such as gs://bucket/run."""
    return _URL.match(path) is not None


def refuse_url(path: str) -> str:
    """Return a path. Raise ValueError if it is a URL."""
    # Path("gs://bucket/run") would be a folder gs: in the working directory.
    if is_url(path):
        raise ValueError(f"must be a local path, not the URL {shown(path)}")
    return path


def expand_path(written: str) -> str:
    """Return a path or URL with its home folder and its variables in place.

    Raises:
        ValueError: There is no such user, or no such variable.
    """
    home = ""
    if written.startswith("~"):
        name = re.split(r"[/\\]" if os.name == "nt" else "/", written, maxsplit=1)[0]
        try:
            home = str(Path(name).expanduser())
        except RuntimeError:
            raise ValueError(
                f"names the home folder of an unknown user, {shown(name)}; for a file of that "
                f"name, write {shown(f'./{name}')}"
            ) from None
        written = written[len(name) :]
    try:
        return home + Template(written).substitute(os.environ)
    except KeyError as error:
        raise ValueError(
            f"names the environment variable {error.args[0]}, which is not set; for a dollar sign, "
            "write $$"
        ) from None
    except ValueError:
        raise ValueError("has a '$' that no name follows; for a dollar sign, write $$") from None


def expand_argument(written: str) -> str:
    """Return an argument that names a path, expanded unless there is a file of that very name.

    A shell that expands a pattern does not quote the names that it finds.

    Raises:
        SettingsError: There is no such user, or no such variable.
    """
    if os.path.lexists(written):
        return written
    try:
        return expand_path(written)
    except ValueError as error:
        raise SettingsError(f"the argument {shown(written)} {error}") from None


def escape_path(path: str) -> str:
    """Return what `expand_path` turns into the path."""
    return ("./" if path.startswith("~") else "") + path.replace("$", "$$")
