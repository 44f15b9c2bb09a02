"""What several tests need: tiny real data, converted by the project itself."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest
from PIL import Image

from library.logging import start_logging

# The same examples in each run: a test that failed fails again. No limits of time, which a busy
# machine would miss.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
start_logging()
if "PYTEST_XDIST_WORKER" in os.environ:
    # Where tests run side by side, so do the processes; their threads would wait for each other.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

ROOT = Path(__file__).parent.parent
COLORS = {"blue": (30, 40, 220), "green": (30, 200, 40), "red": (220, 40, 30)}


def write_colors(folder, per_class, size=16, seed=0):
    """Write noisy PNGs of three colors, as class folders."""
    random = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.array(color) + random.integers(-25, 25, (size, size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number:03d}.png")


def convert(images, data_dir, split, *options):
    """Convert with the command line, as a person would."""
    import convert_dataset

    folder = str(data_dir / split)
    arguments = ["--dataset_dir", str(images), "--tfrecord_filename", split]
    convert_dataset.main([*arguments, "--tfrecord_dir", folder, *options])


@pytest.fixture(scope="session", autouse=True)
def _forked_workers():
    from library.dataset import worker_pool

    with pytest.MonkeyPatch.context() as patch:
        start = worker_pool._start_python
        if hasattr(os, "fork"):
            from tests.helpers.forked_workers import ForkedWorker

            patch.setattr(worker_pool, "_start_python", ForkedWorker)
        yield start


@pytest.fixture
def real_workers(_forked_workers, monkeypatch):
    """Worker processes are started as outside the tests, with the variables of the environment."""
    monkeypatch.setattr("library.dataset.worker_pool._start_python", _forked_workers)


@pytest.fixture(scope="module")
def in_root():
    """The YAML files of the project are those in effect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="session")
def colors(tmp_path_factory):
    """A data folder with three converted splits: 20, 6 and 6 images each of three colors."""
    data_dir = tmp_path_factory.mktemp("colors")
    for seed, (split, count) in enumerate((("train", 20), ("validation", 6), ("test", 6))):
        write_colors(data_dir / split, count, seed=seed)
        convert(data_dir / split, data_dir, split)
    return data_dir


def write_patches(folder, seed=0):
    """Write PNGs with up to two patches, red on the left, blue on the right, and a CSV file."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for split, count in (("TRAIN", 48), ("VALIDATION", 12), ("TEST", 12)):
        for number in range(count):
            pixels = random.integers(100, 140, (8, 8, 3))
            # A quarter of the images has neither.
            has = [name for bit, name in enumerate(("red", "blue")) if number >> bit & 1]
            for name in has:
                side = slice(0, 4) if name == "red" else slice(4, 8)
                pixels[2:6, side] = (220, 20, 20) if name == "red" else (20, 20, 220)
            file = f"{split}-{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / file)
            rows.append(f"{split},{file},{'|'.join(has)}\n")
    (folder / "patches.csv").write_text("".join(rows))


@pytest.fixture(scope="session")
def patches(tmp_path_factory):
    """A data folder with three converted splits of images of several classes, or none."""
    data_dir = tmp_path_factory.mktemp("patches")
    write_patches(data_dir / "images")
    for split in ("train", "validation", "test"):
        source = data_dir / "images" / "patches.csv" / split
        convert(source, data_dir, split, "--label_separator", "|")
    return data_dir


@pytest.fixture
def options(colors, tmp_path, monkeypatch):
    """Options with which run.py trains on the colors within seconds, into tmp_path/run."""
    monkeypatch.chdir(ROOT)
    given = {
        "data_dir": colors,
        "run_dir": tmp_path / "run",
        "model": "simple",
        "image_size": 8,
        "batch_size": 16,
        "train_epochs": 4,
        "learning_rate": 0.01,
        "dropout_rate": 0.1,
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    # The report takes as long as such a training; it has tests of its own.
    return [*words, "--no-report"]


class SnapshotRun(NamedTuple):
    """A finished run: its folder (the snapshot is in `best`), and options that name it and data."""

    folder: Path
    options: list


@pytest.fixture(scope="session")
def snapshot_run(colors, tmp_path_factory):
    """A run that learned the three colors from 8x8 pixels; read it, don't write into it."""
    import run

    folder = tmp_path_factory.mktemp("snapshot_run") / "run"
    values = {"data_dir": colors, "run_dir": folder, "image_size": 8, "batch_size": 16}
    values["model"] = "simple"
    options = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    learning = ["--train_epochs=4", "--learning_rate=0.01", "--dropout_rate=0.1"]
    with contextlib.chdir(ROOT):
        run.main([*options, *learning])
    return SnapshotRun(folder, options)


@pytest.fixture(scope="session")
def _object_store_process():
    from tests.helpers.object_store import ObjectStore

    with contextlib.closing(ObjectStore()) as store:
        yield store


@pytest.fixture
def object_store(_object_store_process):
    """An object store for s3:// URLs on loopback, which answers."""
    yield _object_store_process
    _object_store_process.resume()
    _object_store_process.start()


@pytest.fixture
def bucket(object_store, monkeypatch):
    """The URL of a new bucket of the object store, which this process can reach."""
    from tests.helpers.object_store import used_by_this_process

    with used_by_this_process(object_store, monkeypatch) as url:
        yield url
