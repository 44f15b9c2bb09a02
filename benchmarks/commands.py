"""The project's command line, as a person uses it: each run of these contenders is a whole program.

TensorFlow is not imported here, so that what these processes add hardly counts.
"""

import tempfile
import zipfile
from collections.abc import Iterator

from benchmarks.programs import ROOT, call_project, convert

BATCH, RATE = 32, 1e-2


def convert_sample(folder: str) -> None:
    """Convert the bundled sample, and unpack it for peers that read class folders."""
    sample = ROOT / "dataset" / "sample.zip"
    for split in ("train", "validation", "test"):
        convert(split, sample / split, f"{folder}/{split}")
    with zipfile.ZipFile(sample) as archive:
        archive.extractall(f"{folder}/images")


def train_sample(data: str, *arguments: str) -> Iterator[int | None]:
    """Train on the sample by command line: start, training, saving, and the report if asked for."""
    with tempfile.TemporaryDirectory() as folder:
        yield
        common = ("--config_set", "sample", "--data_dir", data, "--run_dir", f"{folder}/run")
        call_project("run.py", *common, *arguments)
        yield 1


def folder_to_model(folder: str, epochs: str) -> Iterator[int | None]:
    """Convert class folders, and train a new head on a frozen MobileNetV2.

    It caches features, saves checkpoints, snapshots and logs, and writes no report.
    """
    options = {
        "model": "application",
        "application_weights": f"{folder}/base.weights.h5",
        "batch_size": BATCH,
        "train_epochs": epochs,
        "learning_rate": RATE,
        "learning_rate_decay_type": "fixed",
        "dropout_rate": 0.2,
        "l2_regularization": 0.0,
        "augmentations": "",
        "report": "false",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as work:
        yield
        for split in ("train", "validation"):
            convert(split, f"{folder}/{split}", f"{work}/data/{split}")
        call_project("run.py", f"--data_dir={work}/data", f"--run_dir={work}/run", *words)
        yield 1
