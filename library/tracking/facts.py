"""Facts about a run that no setting tells: its commit, and the experiment that it belongs to."""

import contextlib
import getpass
import platform
import re
import subprocess
from pathlib import Path

_GIT_SECONDS = 5.0
# A run below the folder of an experiment: `fold_1`, `seed_0`, `trials/0007/seed_0`.
_MEMBER = r"(?:trials/[^/]+|fold_\d+|seed_\d+)"
_EXPERIMENT = re.compile(rf"(?:.*?/)?([^/]+)/({_MEMBER}(?:/{_MEMBER})*)")


def find_git_state(folder: Path) -> dict[str, str]:
    """Return the tags git_commit, git_branch and git_clean; {} if there is no git repository.

    Args:
        folder: A folder of the repository. Files that git ignores don't matter; others do.
    """
    commit = _ask_git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    found = {"git_commit": commit, "git_branch": _ask_git(folder, "branch", "--show-current")}
    changes = _ask_git(folder, "status", "--porcelain")
    found["git_clean"] = None if changes is None else str(not changes).lower()
    return {key: value for key, value in found.items() if value}


def find_machine() -> dict[str, str]:
    """Return the tags user, host and python."""
    found = {"host": platform.node(), "python": platform.python_version()}
    with contextlib.suppress(OSError, KeyError):  # In a container, a user may have no name.
        found["user"] = getpass.getuser()
    return found


def split_experiment(run_dir: str | Path) -> tuple[str | None, str]:
    """Return the name of the experiment that a run belongs to, None if to none, and the run's name.

    Args:
        run_dir: The run's folder; `out/search/trials/0007/seed_0` is the run `trials/0007/seed_0`
            of the experiment `search`.
    """
    path = Path(run_dir).absolute()
    match = _EXPERIMENT.fullmatch(path.as_posix())
    return (match[1], match[2]) if match else (None, path.name)


def _ask_git(folder: Path, *words: str) -> str | None:
    """Return what git answers, or None if it fails or takes long."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
