"""Train and evaluate from Python, as in a notebook, a network and images of your own.

What it writes is a run like any other: `predict`, `serve`, `explain`, `export` and `compare` work
on it. docs/notebook.md has examples.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from library.configuration.reader import Settings
from library.dataset.unconverted import read_generated
from library.logging import start_logging
from project.commands.evaluate import evaluate_split
from project.commands.setup import read_data, start_tensorflow
from project.commands.train import train_splits
from project.networks import NETWORKS
from project.settings import read_settings

Images = Callable[[str], Iterable[tuple[np.ndarray | bytes, str]]]
Network = Callable[[tuple[int, int, int], int], keras.Model]


def train_and_evaluate(
    network: str | Network, data: str | Path | Images, **settings: Any
) -> dict[str, Any]:
    """Train a network, save the best snapshot by validation, and evaluate it on the test split.

    If the run was stopped, the same call resumes it; if it is finished, it is only evaluated.

    Args:
        network: A name in project/networks, or a function of (image_shape, class_count) that
            returns a model from float32 pixels in [0, 255] to logits.
        data: A folder of converted splits; or a function that yields (image, class name) of the
            split train, validation or test, the same at every call. An image is uint8 pixels
            (height, width, 1 or 3), or the bytes of a file.
        **settings: Any setting of project.yaml and hyperparameters.yaml by name, such as
            `run_dir`, `train_epochs`, `learning_rate`, `image_size`.

    Returns:
        The metrics of the best snapshot on the test split, as `evaluate` prints them.

    Raises:
        SettingsError: A setting is unknown, or has a wrong value.
        DataError: The data is missing or invalid.
    """
    start_logging()
    if callable(network):
        NETWORKS[network.__name__] = network
        network = network.__name__
    config = _read_settings(dict(model=network, **settings), data)
    start_tensorflow(config.project)
    if callable(data):
        training, validation, test = read_generated(
            data, ("train", "validation", "test"), config.project.class_order
        )
    else:
        training, test = read_data(config.project, "train", config.project.split)
        (validation,) = read_data(config.project, "validation")
    train_splits(config, (training, validation))
    return evaluate_split(config, test, validation)


def _read_settings(values: Mapping[str, Any], data: str | Path | Images) -> Settings:
    """Return the settings as a command line with these values would give them."""
    place = {"data_format": "generator"} if callable(data) else {"data_dir": str(data)}
    words = []
    for name, value in {**place, **values}.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list | tuple):
            words.append(f"--{name}={','.join(map(str, value))}")
        else:
            words.append(f"--{name}={value}")
    return read_settings(words)
