"""Backbones of keras-hub in a .keras file: what loading and saving them needs."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from library.errors import CheckpointError, SettingsError
from library.files import parse_json
from library.tensorflow_import import import_keras_hub

_PACKAGE = "keras_hub"


def prepare_keras_hub(path: Path) -> None:
    """Import keras-hub if a .keras file has one of its backbones.

    Nothing else of it may be in the file: a tokenizer, for example, would read other files.

    Raises:
        CheckpointError: keras-hub is not installed.
        ValueError: The file has another class of it.
    """
    with zipfile.ZipFile(path) as archive:
        names = set(_find_classes(parse_json(archive.read("config.json"))))
    if not names:
        return
    try:
        models = import_keras_hub("it").models
    except SettingsError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error
    for name in sorted(names):
        kind = getattr(models, name, None)
        if not (isinstance(kind, type) and issubclass(kind, models.Backbone)):
            raise ValueError(f"it has {name} of keras-hub, which is no backbone")


def keep_positions(network: keras.Model) -> None:
    """Let DINOv2's layer store the position embeddings that it was trained to.

    A defect of keras-hub 0.32: the layer stores those that it was made with, unless the sum of its
    changes is positive. test_keras_hub_forgets_positions tells when to remove this.
    """
    for layer in network._flatten_layers():
        trained = getattr(layer, "interpolated_position_embeddings", None)
        if trained is not None and layer.position_embeddings.shape == trained.shape:
            layer.position_embeddings.assign(trained)


def _find_classes(config: Any) -> Iterator[str]:
    """Yield the names of keras-hub's classes in the configuration of a network."""
    if isinstance(config, dict):
        where = (config.get("module"), config.get("registered_name"))
        if any(str(each).startswith(_PACKAGE) for each in where):
            yield str(config.get("class_name"))
            if ">" in str(config.get("registered_name")):
                yield str(config["registered_name"]).partition(">")[2]
    for each in config.values() if isinstance(config, dict) else config:
        if isinstance(each, dict | list):
            yield from _find_classes(each)
