"""Checkpoints: everything needed to resume a run exactly where it stopped.

A checkpoint is one sealed folder, `step_<step>/`, that appears whole or not at all:

- `state.json`: the position in the training, and whatever else the loop restores
- `variables.npz`: every variable of the network, the optimizer and the metrics, in order
- `hashes.json`: SHA-256 of these two files when they were written
"""

import contextlib
import json
import logging
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.lib import format as npy_format

from library.dataset.sources.base import composed
from library.errors import CheckpointError, first_line
from library.files import (
    PREVIOUS,
    explain_write_errors,
    find_damage,
    new_folder,
    parse_json,
    remove_partials,
    restore_folder,
    seal_folder,
)

logger = logging.getLogger(__name__)

# Of the largest kind of number.
_MAX_ITEM_BYTES = 16
_NAME = re.compile(r"step_\d+")


class Checkpoints:
    """The last `keep` checkpoints in one folder, by step; all of them if it is None."""

    def __init__(self, folder: str | Path, keep: int | None = None) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, variables: Iterable[Any], state: dict[str, Any]) -> None:
        """Write a checkpoint, then remove all but the last `keep`.

        Args:
            step: Number of training steps taken.
            variables: Keras or TensorFlow variables, or arrays.
            state: Whatever else is to be restored, as JSON holds it.

        Raises:
            UserError: The checkpoint cannot be written; earlier ones are then intact.
        """
        arrays = {f"{i:05d}": np.asarray(each) for i, each in enumerate(variables)}
        path = self.folder / f"step_{step:010d}"
        with explain_write_errors(f"checkpoint {path}"), new_folder(path) as folder:
            np.savez(folder / "variables.npz", **arrays)  # type: ignore[arg-type]
            (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
            seal_folder(folder)
        if self.keep is not None:
            for old in self.paths()[self.keep :]:
                shutil.rmtree(old)

    def paths(self) -> list[Path]:
        """Return the checkpoints' folders, newest first."""
        found = self.folder.glob("step_*")
        return sorted((each for each in found if _NAME.fullmatch(each.name)), reverse=True)

    def find_latest(self) -> Path | None:
        """Return the newest undamaged checkpoint's folder, or None if there are no checkpoints.

        Logs each damaged one. Removes or completes what a killed save left behind, so only the
        process that may write there can call it.

        Raises:
            CheckpointError: All checkpoints are damaged.
        """
        remove_partials(self.folder)
        for previous in self.folder.glob(f"step_*{PREVIOUS}"):
            restore_folder(previous.with_suffix(""))
        paths = [each for each in self.paths() if each.is_dir()]
        for path in paths:
            damage = find_damage(path)
            if damage is None:
                return path
            logger.warning("checkpoint %s is damaged (%s); trying the one before it", path, damage)
        if paths:
            raise CheckpointError(
                f"all checkpoints in {self.folder} are damaged; --resume never starts over"
            )
        return None


def read_state(path: Path) -> dict[str, Any]:
    """Return the state that a checkpoint was saved with. Raises CheckpointError."""
    with contextlib.suppress(OSError, ValueError):
        state = parse_json((path / "state.json").read_bytes())
        if isinstance(state, dict):
            return state
    raise CheckpointError(f"{path / 'state.json'} does not hold a JSON dict")


def read_latest_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings that the newest readable checkpoint was made with; {} without one."""
    for path in Checkpoints(folder).paths():
        with contextlib.suppress(CheckpointError, KeyError):
            return read_state(path)["settings"]
    return {}


def read_variables(path: Path, variables: Sequence[Any], start: int | None = None) -> None:
    """Assign a checkpoint's values to variables, in the order in which they were saved.

    Args:
        path: The checkpoint's folder.
        variables: Keras or TensorFlow variables.
        start: Position of the first variable among those saved, if `variables` are only some of
            them; None if they are all.

    Raises:
        CheckpointError: The number of variables or a shape differs, or the file is malformed;
            nothing is assigned.
    """
    try:
        with np.load(path / "variables.npz") as file:
            names = sorted(file.files)
            if start is not None:
                names = names[start : start + len(variables)]
            _check_shapes(path, [_read_shape(file.zip, name) for name in names], variables)
            arrays = [file[name] for name in names]
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"checkpoint {path} can't be read: {first_line(error)}") from None
    for array, variable in zip(arrays, variables, strict=True):
        # NumPy has no bfloat16, which it reads as raw two-byte values.
        is_raw = array.dtype.kind == "V"
        variable.assign(array.view(np.asarray(variable).dtype) if is_raw else array)


def _read_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Return the shape of an array. Raises ValueError if its values are no numbers."""
    with archive.open(f"{name}.npy") as file:
        is_first = npy_format.read_magic(file) == (1, 0)
        read = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.kind not in "fiubV" or dtype.itemsize > _MAX_ITEM_BYTES:
        raise ValueError(f"its array {name} is of type {dtype}")
    return shape


def _check_shapes(path: Path, shapes: Sequence[tuple[int, ...]], variables: Sequence[Any]) -> None:
    """Raise CheckpointError unless the shapes are those of the variables."""
    advice = "use the settings it was made with, or --resume never"
    if len(shapes) != len(variables):
        raise CheckpointError(
            f"checkpoint {path} has {len(shapes)} variables, this network and optimizer have "
            f"{len(variables)}; {advice}"
        )
    for shape, variable in zip(shapes, variables, strict=True):
        if shape != tuple(variable.shape):
            raise CheckpointError(
                f"checkpoint {path} has shape {shape} for {variable.name}, this network "
                f"has {tuple(variable.shape)}; {advice}"
            )


def check_multi_label(source: object, stored: bool, wanted: bool) -> None:
    """Raise CheckpointError unless both or neither are multi-label.

    Args:
        source: The checkpoint or snapshot, for the message.
        stored: Whether it is multi-label.
        wanted: Whether the data are.
    """
    if stored != wanted:
        kinds = {True: "multi-label images", False: "images of one class each"}
        raise CheckpointError(
            f"{source} was trained on {kinds[stored]}, but the data are {kinds[wanted]}; "
            "choose another --run_dir"
        )


def check_classes(source: object, stored: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise CheckpointError, naming the difference, unless both have the same classes.

    Args:
        source: The checkpoint or snapshot, for the message.
        stored: Its class names, in label order.
        wanted: Those of the data.
    """
    # Earlier versions stored names as the file system of the images had them.
    stored, wanted = list(map(composed, stored)), list(map(composed, wanted))
    if stored == wanted:
        return
    removed = [each for each in stored if each not in wanted]
    added = [each for each in wanted if each not in stored]
    difference = "; ".join(
        f"{words} {', '.join(map(repr, names[:5]))}{' …' if names[5:] else ''}"
        for words, names in (("only there:", removed), ("only in the data:", added))
        if names
    )
    advice = "choose another --run_dir"
    if not added:
        # Most often, data of some of the classes are to be evaluated.
        advice = (
            f"convert the data with --classes_from, the manifest of the training split, or {advice}"
        )
    raise CheckpointError(
        f"{source} was trained on other classes ({difference or 'in another order'}); {advice}"
    )


def ema_variables(network: keras.Model) -> list[keras.Variable]:
    """Return the variables of a network that an exponential moving average follows."""
    # The state of random generators is integers, which have no meaningful mean.
    return [each for each in network.variables if "float" in each.dtype]
