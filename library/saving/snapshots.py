"""Snapshots: the best model by validation in a sealed folder, complete or absent.

- `model.keras`: the network, from pixels in [0, 255] to logits
- `classes.json`: the class names in label order
- `metrics.json`: step, epoch, the monitored value, all validation metrics
- `data.json`: number of training images per class, how images have to be prepared, and where
  pretrained weights come from
- `project.yaml`, `hyperparameters.yaml`: the settings it was trained with
"""

import contextlib
import json
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from library.dataset.manifest import describe_split
from library.dataset.options import ImageOptions, read_image_options
from library.errors import CheckpointError, UserError, first_line
from library.files import (
    SEAL,
    current_folder,
    explain_write_errors,
    find_damage,
    new_folder,
    parse_json,
    read_sealed,
    remove_partials,
    restore_folder,
    seal_folder,
    sha256_of,
)
from library.inputs.aspect_ratio import Fit
from library.inputs.decoding import ImageFormat
from library.limits import check_output_sizes, limits
from library.messages import counted_classes
from library.saving.checkpoints import ema_variables, read_state, read_variables
from library.saving.keras_hub_backbones import keep_positions, prepare_keras_hub
from library.saving.weights_file import check_keras_file

DATA = "data.json"
_FIRST_ZIP_YEAR = 1980
_MAX_REASON = 200
# How much time, and how much memory, a network may take while it is loaded: a file of a few bytes
# can describe a network of any size.
_LOAD_SECONDS, _MEMORY_BYTES, _MEMORY_PER_BYTE = 600, 1 << 30, 8


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as read from disk, or an ensemble of several.

    Attributes:
        network: From pixels in [0, 255] to logits.
        classes: Class names in label order.
        metrics: Contents of metrics.json.
        folder: Where it was read from.
        data: Contents of data.json; {} in snapshots without one.
        members: The snapshots of an ensemble (library/prediction/ensemble.py).
        views: Number of views of an image that the ensemble averages over.
        sha256: Of all its files; empty for an ensemble.
    """

    network: keras.Model
    classes: tuple[str, ...]
    metrics: dict[str, Any]
    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    members: tuple["Snapshot", ...] = ()
    views: int = 1
    sha256: str = ""

    @property
    def image_options(self) -> ImageOptions:
        """How the training images were prepared, as new ones have to be."""
        return read_image_options(self.data.get("images", {}))

    @property
    def fit(self) -> Fit:
        """How images fit the network; snapshots that don't say so squeeze them."""
        return Fit.from_json(self.data.get("fit", {}), self.image_options.background)

    @property
    def image_format(self) -> ImageFormat:
        """What the network takes."""
        return ImageFormat.of(self.network, self.fit)


def data_text(split: Any, fit: Fit, pretrained: Mapping[str, str] | None = None) -> str:
    """Return the contents of data.json.

    Args:
        split: The training split.
        fit: How images are to fit.
        pretrained: `source` and `license` of pretrained weights, if there are any.
    """
    more = {"pretrained": pretrained} if pretrained else {}
    return _json_text({**describe_split(split), "fit": fit.to_json(), **more})


def write_snapshot(
    folder: str | Path,
    network: keras.Model,
    classes: Sequence[str],
    metrics: Mapping[str, Any],
    texts: Mapping[str, str],
) -> None:
    """Replace the snapshot in a folder; on any error the old one stays as it was.

    Args:
        folder: Where to write it.
        network: From pixels in [0, 255] to logits.
        classes: Class names in label order.
        metrics: Contents of metrics.json.
        texts: Contents of further files, by name.

    Raises:
        UserError: The snapshot cannot be written.
    """
    with explain_write_errors(f"the snapshot in {folder}"), new_folder(folder) as partial:
        speed_up_saving()
        _save_network(network, partial / "model.keras")
        (partial / "classes.json").write_text(_json_text(list(classes)), encoding="utf-8")
        (partial / "metrics.json").write_text(_json_text(metrics), encoding="utf-8")
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        seal_folder(partial)


def _save_network(network: keras.Model, path: Path) -> None:
    keep_positions(network)
    if time.localtime(time.time()).tm_year >= _FIRST_ZIP_YEAR:
        network.save(path)
        return
    # A zip holds no earlier time, and Keras would give its files the clock's.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network.save(folder, zipped=False)
        with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
            for each in sorted(Path(folder).rglob("*")):
                archive.write(each, each.relative_to(folder))


def repair_snapshot(folder: str | Path) -> None:
    """Undo an interrupted replacement. Only for the process that may write there."""
    folder = Path(folder)
    restore_folder(folder)
    remove_partials(folder.parent, folder.name)


def has_snapshot(folder: str | Path) -> bool:
    """Return whether there is a snapshot. Changes nothing: training may be about to replace it."""
    return current_folder(folder).is_dir()


def read_snapshot(folder: str | Path) -> Snapshot:
    """Return the snapshot in a folder. Changes nothing.

    Reads again if a training replaces the snapshot meanwhile.

    Raises:
        CheckpointError: The snapshot is absent or damaged.
    """
    folder = Path(folder)
    return read_sealed(folder, lambda path: _read(folder, path))


def load_snapshot(source: str | Path | None, best: str | Path) -> Snapshot:
    """Return the snapshot of a run, or the network of an earlier checkpoint as one.

    Args:
        source: The folder of a snapshot, of a run (meaning its best snapshot) or of a checkpoint
            (whose run's best snapshot has the architecture); None for `best`.
        best: The current run's best snapshot.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    if source is None:
        return read_snapshot(best)
    folder = Path(source)
    if (folder / "state.json").is_file():
        return _read_checkpoint(folder, best)
    if has_snapshot(folder / "best") and not (folder / "classes.json").is_file():
        folder = folder / "best"
    return read_snapshot(folder)


def speed_up_saving() -> None:
    """Fill Keras's cache of the attributes that hold no weights, by kind of layer.

    A defect in keras.src.saving.saving_lib.get_attr_skipset (Keras 3.15): it looks the names up
    under one key and stores them under another, so that it makes a layer for each layer that is
    saved or loaded. Without this, 20 epochs on cached features take 5 to 7 % longer
    (benchmarks/transfer.py). test_keras_makes_layers_while_saving tells when to remove it.
    """
    try:
        from keras.src.backend.common import global_state
        from keras.src.saving.saving_lib import get_attr_skipset
    except ImportError:
        return  # another version of Keras, which is left as it is
    for kind in ("Layer", "Functional", "Sequential"):
        name = f"saving_attr_skiplist_{kind}"
        if global_state.get_global_attribute(name) is None:
            global_state.set_global_attribute(name, get_attr_skipset(kind))


def _read_checkpoint(folder: Path, best: str | Path) -> Snapshot:
    """Return the best snapshot of the checkpoint's run with the checkpoint's weights."""
    if damage := find_damage(folder):
        raise CheckpointError(f"checkpoint {folder} is damaged ({damage}); choose another one")
    state = read_state(folder)
    try:
        own_best = folder.parent.parent / "best"
        snapshot = read_snapshot(own_best if has_snapshot(own_best) else best)
        if tuple(state["classes"]) != snapshot.classes:
            raise CheckpointError(f"{snapshot.folder} has other classes than checkpoint {folder}")
        network = snapshot.network
        read_variables(folder, network.variables, start=0)
        if (start := state.get("averages_at")) is not None:
            # Training evaluates and saves the averaged weights, if there are any.
            read_variables(folder, ema_variables(network), start=start)
        metrics = {"epoch": state["epoch"] + (state["batch"] > 0), "step": state["step"]}
    except KeyError as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint of this project: {error} is missing"
        ) from None
    return replace(snapshot, metrics=metrics, folder=folder, sha256=sha256_of(folder / SEAL))


def _read(folder: Path, path: Path) -> Snapshot:
    """Read the snapshot that is called `folder`, and is at `path` while it is being replaced."""
    if not path.exists():
        if seeds := sorted(folder.parent.glob("seed_*")):
            raise CheckpointError(
                f"{folder} does not exist, but runs of several seeds do: choose one, as with "
                f"--run_dir {seeds[0]}, or average them with --ensemble"
            )
        raise CheckpointError(
            f"{folder} does not exist; train a network first (python run.py), or choose the folder "
            "of a snapshot, a run or a checkpoint"
        )
    if not any((path / name).exists() for name in ("model.keras", "classes.json", SEAL)):
        raise CheckpointError(
            f"{folder} is not a snapshot, a folder with model.keras, classes.json and metrics.json"
        )
    if damage := find_damage(path):
        raise CheckpointError(
            f"the snapshot in {folder} is damaged ({damage}); move it away and train again"
        )
    snapshot = Snapshot(
        network=load_network(path / "model.keras"),
        classes=tuple(_read_json(path / "classes.json", list)),
        metrics=_read_json(path / "metrics.json", dict),
        folder=folder,
        data=_read_json(path / DATA, dict) if (path / DATA).exists() else {},
        sha256=sha256_of(path / SEAL),
    )
    _check_contents(snapshot)
    class_count, logit_count = len(snapshot.classes), snapshot.network.output_shape[-1]
    if class_count != logit_count:
        raise CheckpointError(
            f"{folder} names {counted_classes(class_count)}, but its network has {logit_count} "
            "outputs"
        )
    return snapshot


def _check_contents(snapshot: Snapshot) -> None:
    """Raise CheckpointError for class names or image options that none can have written."""
    names = snapshot.classes
    if not all(isinstance(each, str) for each in names) or len(set(names)) < len(names):
        raise CheckpointError(f"{snapshot.folder}/classes.json is not a list of distinct names")
    try:
        _ = snapshot.fit
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{snapshot.folder}/{DATA}: {error}") from None


def _read_json(path: Path, kind: type) -> Any:
    """Return a file's contents, checked to be a `kind`: a hash proves no particular contents."""
    with contextlib.suppress(ValueError):
        if isinstance(value := parse_json(path.read_bytes()), kind):
            return value
    raise CheckpointError(f"{path} does not hold a JSON {kind.__name__}")


def load_network(path: Path) -> keras.Model:
    """Return the network in a .keras file. Raises CheckpointError if it can't be loaded."""
    speed_up_saving()
    try:
        check_keras_file(path)
        prepare_keras_hub(path)
        memory_bytes = _MEMORY_BYTES + _MEMORY_PER_BYTE * path.stat().st_size
        with limits(CheckpointError(f"cannot load {path}"), _LOAD_SECONDS, memory_bytes):
            # The training loop is ours, so there is nothing to compile.
            network = keras.models.load_model(path, compile=False)
        check_output_sizes(network)
        return network
    except UserError:
        raise
    except Exception as error:
        # Keras raises many kinds, also for code inside the file, which it refuses to run.
        # They may quote the file.
        reason = first_line(error).split(". ")[0][:_MAX_REASON]
        raise CheckpointError(f"cannot load {path}: {reason}") from error


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
