"""The best model by validation: a sealed folder, complete or absent, that needs nothing else.

- `model.keras`: the network, taking pixels in [0, 255], giving logits
- `classes.json`: the class names in label order
- `metrics.json`: step, epoch, the monitored value, all validation metrics
- `data.json`: how many images of which class it learned from, and how they were prepared
- `project.yaml`, `hyperparameters.yaml`: the settings that made it
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import keras

from library.dataset.preparation import describe_split, read_image_options
from library.errors import CheckpointError, UserError
from library.files import (
    SEAL,
    current_folder,
    explain_write_errors,
    find_damage,
    new_folder,
    read_sealed,
    remove_partials,
    restore_folder,
    seal_folder,
)
from library.messages import counted_classes

DATA = "data.json"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as read from disk."""

    network: keras.Model
    classes: tuple
    metrics: dict
    folder: Path
    # What library/dataset/preparation.py says of the training split; {} in older snapshots.
    data: dict = field(default_factory=dict)
    # Made in memory of others (library/prediction/ensemble.py): these Snapshots, and in how many
    # views they see an image.
    members: tuple = ()
    views: int = 1

    @property
    def image_options(self):
        """How a file becomes an image such as the network learned from: ImageOptions."""
        return read_image_options(self.data.get("images", {}))


def data_text(split):
    """Return the text of the file DATA for the split that a network learns from."""
    return _json(describe_split(split))


def write_snapshot(folder, network, classes, metrics, texts):
    """Replace the snapshot in `folder`; on any error the old one stays as it was.

    `texts` is a dict: more files to keep, by name. Raises UserError if it can't be written.
    """
    with explain_write_errors(f"the snapshot in {folder}"), new_folder(folder) as partial:
        remember_attributes()
        network.save(partial / "model.keras")
        (partial / "classes.json").write_text(_json(list(classes)))
        (partial / "metrics.json").write_text(_json(metrics))
        for name, text in texts.items():
            (partial / name).write_text(text)
        seal_folder(partial)


def mend_snapshot(folder):
    """Undo what a replacement cut short has left. Only for who alone may write there."""
    folder = Path(folder)
    restore_folder(folder)
    remove_partials(folder.parent, folder.name)


def has_snapshot(folder):
    """Return whether there is a snapshot. Changes nothing: training may be about to replace it."""
    return current_folder(folder).is_dir()


def read_snapshot(folder):
    """Return the Snapshot in `folder`. Raises CheckpointError if it is absent or damaged.

    Changes nothing. If a training replaces the snapshot meanwhile, it is read again.
    """
    folder = Path(folder)
    return read_sealed(folder, lambda where: _read(folder, where))


def _read(folder, where):
    """Read the Snapshot that is `where`, for now; `folder` is the name that it goes by."""
    if where.is_file():
        raise CheckpointError(
            f"{folder} is a file: a snapshot is the folder around its model.keras"
        )
    if not where.is_dir():
        raise CheckpointError(f"no snapshot in {folder}: python run.py trains a network first")
    if not any((where / name).exists() for name in ("model.keras", "classes.json", SEAL)):
        raise CheckpointError(
            f"{folder} is no snapshot of this project: a snapshot holds model.keras, classes.json "
            "and metrics.json"
        )
    damage = find_damage(where)
    if damage:
        raise CheckpointError(
            f"the snapshot in {folder} is damaged ({damage}): move it away and train again"
        )
    snapshot = Snapshot(
        network=_load(where / "model.keras"),
        classes=tuple(_read_json(where / "classes.json", list)),
        metrics=_read_json(where / "metrics.json", dict),
        folder=folder,
        data=_read_json(where / DATA, dict) if (where / DATA).exists() else {},
    )
    names, scores = len(snapshot.classes), snapshot.network.output_shape[-1]
    if names != scores:
        raise CheckpointError(
            f"{folder} holds the names of {counted_classes(names)}, but its network gives "
            f"scores for {scores}"
        )
    return snapshot


def _read_json(path, kind):
    """Return what a file of a snapshot holds, a `kind`: a seal does not tell what was sealed."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} holds no {kind.__name__}, as a snapshot's would")
    return value


def _load(path):
    remember_attributes()
    try:
        # compile=False: the training loop is ours.
        return keras.models.load_model(path, compile=False)
    except UserError:
        raise
    except Exception as error:
        # Whatever Keras finds wrong; among it, code inside the file, which it refuses to run.
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise CheckpointError(f"{path} cannot be loaded: {reason}") from error


def _json(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def remember_attributes():
    """Let Keras know of each kind of layer which attributes hold no weights.

    Keras 3.15 keeps what it finds under one name and looks for it under another. So it makes a new
    layer for each layer that it saves or loads, which is half the work of either. Where Keras has
    no such names, it is left to itself.
    """
    try:
        from keras.src.backend.common import global_state
        from keras.src.saving.saving_lib import get_attr_skipset
    except ImportError:
        return
    for kind in ("Layer", "Functional", "Sequential"):
        name = f"saving_attr_skiplist_{kind}"
        if global_state.get_global_attribute(name) is None:
            global_state.set_global_attribute(name, get_attr_skipset(kind))
