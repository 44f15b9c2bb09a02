"""The installed packages, against requirements.lock and what pyproject.toml asks for."""

import platform
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[2]
# For developers of the project: nothing that a training needs.
_DEVELOP = "develop"
_PINNED = re.compile(r"^[A-Za-z0-9][^\s=]*==[^\\#\n]+", re.MULTILINE)


@dataclass(frozen=True)
class Packages:
    """Python and the packages.

    Attributes:
        python: Its version.
        requires_python: The versions that the project is for; empty if pyproject.toml is missing.
        locked: Number of installed packages that requirements.lock pins; None: there is no lock.
        differing: name → (installed, pinned), where both differ.
        missing: What is needed and not installed, or of a version that does not fit.
        missing_extras: Extra → what it lacks.
    """

    python: str
    requires_python: str
    locked: int | None
    differing: dict[str, tuple[str, str]]
    missing: tuple[str, ...]
    missing_extras: dict[str, tuple[str, ...]]

    @property
    def is_python_supported(self) -> bool:
        """Whether the project is for this version of Python."""
        return Version(self.python) in SpecifierSet(self.requires_python, prereleases=True)


def read_packages(root: Path = ROOT) -> Packages:
    """Return Python and the installed packages. `root` is the project's folder."""
    path, lock = root / "pyproject.toml", root / "requirements.lock"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.exists() else {}
    extras = {
        name: tuple(find_unmet(words))
        for name, words in project.get("optional-dependencies", {}).items()
        if name != _DEVELOP
    }
    pinned = dict(read_lock(lock.read_text(encoding="utf-8"))) if lock.exists() else {}
    installed = {name: found for name in pinned if (found := installed_version(name))}
    return Packages(
        python=platform.python_version(),
        requires_python=project.get("requires-python", ""),
        locked=len(installed) if lock.exists() else None,
        differing={
            name: (version, pinned[name])
            for name, version in installed.items()
            if not _is_same(version, pinned[name])
        },
        missing=tuple(find_unmet(project.get("dependencies", ()))),
        missing_extras={name: lacks for name, lacks in extras.items() if lacks},
    )


def read_lock(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, version) of what a lock file pins for this Python and system."""
    for line in _PINNED.findall(text):
        pin = Requirement(line.strip())
        if pin.marker is None or pin.marker.evaluate():
            yield canonicalize_name(pin.name), next(iter(pin.specifier)).version


def find_unmet(requirements: Iterable[str]) -> Iterator[str]:
    """Yield what is not installed: `name`, or `name 1.0 (needs >=2)`, also in nested extras."""
    for each in map(Requirement, requirements):
        if each.marker is not None and not each.marker.evaluate():
            continue
        version = installed_version(each.name)
        if version is None:
            yield each.name
        elif not each.specifier.contains(version, prereleases=True):
            yield f"{each.name} {version} (needs {each.specifier})"
        else:
            yield from find_unmet(extra_requirements(each.name, each.extras))


def extra_requirements(name: str, extras: Iterable[str]) -> Iterator[str]:
    """Yield what an installed package asks for in some of its extras."""
    for extra in extras:
        for each in map(Requirement, metadata.requires(name) or ()):
            if (
                each.marker
                and each.marker.evaluate({"extra": extra})
                and not each.marker.evaluate()
            ):
                each.marker = None
                yield str(each)


def installed_version(name: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_same(version: str, pinned: str) -> bool:
    """Return whether versions are the same but for a local label, as in 2.1+cpu."""
    try:
        return Version(version).public == Version(pinned).public
    except InvalidVersion:
        return version == pinned
