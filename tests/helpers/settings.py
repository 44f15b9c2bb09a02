"""Settings files for tests, and a small model of every kind of key."""

from pathlib import Path
from typing import Literal

from library.configuration.schema import Count, Fraction, Keys, Positive, Text, Words, key, keys_of
from project.hyperparameters import Hyperparameters
from project.settings import Project

KEYS = keys_of(Project) + keys_of(Hyperparameters)
WHICH = ("hyperparameter_file", "hyperparameter_set")


class Bakery(Keys):
    """A key of every kind."""

    heading = "Bakery"
    loaves: Count = key(1, "loaves")
    ovens: Count | None = key(None, "ovens", follows="{loaves}")
    heat: Positive = key(180.0, "heat")
    rye: Fraction = key(0.5, "share of rye")
    open: bool = key(True, "whether it is open")
    town: Text = key("Kiel", "town")
    sign: Text | None = key(None, "sign", follows="{town}/bread")
    kind: Literal["bread", "cake"] = key("bread", "kind")
    floor: Literal[1, 3] = key(1, "floor")
    extras: Words = key((), "extras")


def write_settings(folder: Path, project: str = "", hyperparameters: str = "") -> list[str]:
    """Write both files, and return the options that name them."""
    (folder / "p.yaml").write_text(project)
    (folder / "h.yaml").write_text(hyperparameters)
    return [f"--config_file={folder}/p.yaml", f"--hyperparameter_file={folder}/h.yaml"]
