"""The latest state: everything needed to go on exactly where a run stopped.

A checkpoint is one sealed folder, `step_<step>/`, that appears whole or not at all:

- `state.json`: where in the schedule the run is, and whatever else the loop wants to remember
- `variables.npz`: every variable of network, optimizer and metrics, in order
- `hashes.json`: what these two files were when they were written
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np

from library.errors import CheckpointError
from library.files import (
    PREVIOUS,
    explain_write_errors,
    find_damage,
    new_folder,
    remove_partials,
    restore_folder,
    seal_folder,
)

_NAME = re.compile(r"step_\d+")


class Checkpoints:
    """The checkpoints in one folder: the last few, by step."""

    def __init__(self, folder, keep=1):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step, variables, state):
        """Write a checkpoint, then remove all but the last `keep`.

        Takes a list of variables (Keras or TensorFlow ones) and a dict that JSON can hold. Raises
        UserError if it can't be written; all earlier ones are then intact.
        """
        arrays = {f"{i:05d}": np.asarray(each) for i, each in enumerate(variables)}
        path = self.folder / f"step_{step:010d}"
        with explain_write_errors(f"checkpoint {path}"), new_folder(path) as folder:
            np.savez(folder / "variables.npz", **arrays)
            (folder / "state.json").write_text(json.dumps(state, indent=2))
            seal_folder(folder)
        for old in self.paths()[self.keep :]:
            shutil.rmtree(old)

    def paths(self):
        """Return the checkpoints' folders, newest first."""
        found = self.folder.glob("step_*")
        return sorted((each for each in found if _NAME.fullmatch(each.name)), reverse=True)

    def find_latest(self, report):
        """Return the newest undamaged checkpoint's folder, or None if there are none at all.

        Damaged ones are told to `report`, by name. Raises CheckpointError if all are damaged. What
        a killed save left is mended: only for who alone may write there.
        """
        remove_partials(self.folder)
        for previous in self.folder.glob(f"step_*{PREVIOUS}"):
            restore_folder(previous.with_suffix(""))
        paths = [each for each in self.paths() if each.is_dir()]
        for path in paths:
            damage = find_damage(path)
            if damage is None:
                return path
            report(f"checkpoint {path} is damaged ({damage}): trying the one before it")
        if paths:
            raise CheckpointError(
                f"all checkpoints in {self.folder} are damaged: "
                "--resume never starts again from the beginning"
            )
        return None


def read_state(path):
    """Return the state that a checkpoint was saved with."""
    return json.loads((Path(path) / "state.json").read_text())


def read_variables(path, variables, start=None):
    """Assign a checkpoint's values to the variables, in the order in which they were saved.

    With `start`, these are only some of those saved: as many, from that position on. Raises
    CheckpointError, and assigns nothing, if their number or a shape differs.
    """
    with np.load(Path(path) / "variables.npz") as file:
        names = sorted(file.files)
        if start is not None:
            names = names[start : start + len(variables)]
        arrays = [file[name] for name in names]
    if len(arrays) != len(variables):
        raise CheckpointError(
            f"checkpoint {path} has {len(arrays)} variables, this network and optimizer have "
            f"{len(variables)}: use the settings it was made with, or --resume never"
        )
    for array, variable in zip(arrays, variables, strict=True):
        if array.shape != tuple(variable.shape):
            raise CheckpointError(
                f"checkpoint {path} has shape {array.shape} for {variable.name}, this network "
                f"has {tuple(variable.shape)}: use the settings it was made with, "
                "or --resume never"
            )
    for array, variable in zip(arrays, variables, strict=True):
        # NumPy has no bfloat16: it comes back as raw two-byte values.
        raw = array.dtype.kind == "V"
        variable.assign(array.view(np.asarray(variable).dtype) if raw else array)


def check_kind(where, stored_several, wanted_several):
    """Raise CheckpointError if images have one class here, and may have several there."""
    if stored_several != wanted_several:
        stored, wanted = (
            "several classes" if each else "one class" for each in (stored_several, wanted_several)
        )
        raise CheckpointError(
            f"{where} was made for images of {stored} each, these have {wanted}: "
            "choose another --run_dir"
        )


def check_classes(where, stored, wanted):
    """Raise CheckpointError, naming the difference, unless both lists of classes are the same."""
    stored, wanted = list(stored), list(wanted)
    if stored == wanted:
        return
    gone = [each for each in stored if each not in wanted]
    new = [each for each in wanted if each not in stored]
    difference = "; ".join(
        f"{words} {', '.join(map(repr, names[:5]))}{' …' if names[5:] else ''}"
        for words, names in (("only there:", gone), ("only in the data:", new))
        if names
    )
    raise CheckpointError(
        f"{where} was made for other classes ({difference or 'in another order'}): "
        "choose another --run_dir"
    )


def averaged_variables(network):
    """Return the variables of a network that have averages, in their order."""
    # The state of random generators is whole numbers, and has no mean.
    return [each for each in network.variables if "float" in each.dtype]
