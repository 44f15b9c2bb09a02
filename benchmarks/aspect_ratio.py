"""Accuracy by how images of mixed shapes become the network's input (`--fit`). About ten minutes.

Each wallpaper of a folder is a class. Its images are crops of it, with aspect ratios up to
`--max_aspect`: those to train on from its left part, those to test on from its right part. Or
`--images` names a folder of labeled images, which each seed splits anew.

Random crops do not depend on the fit. So if there are any, one training for each seed serves all
fits, and its last checkpoint is evaluated with each; without random crops, training sees the same
fit as the evaluation. Further options are those of run.py: `--fine_tuning --unfreezing 0=4`, for
example, or `--augmentations flip`.

The last line is one JSON object: for each fit the mean accuracy over the seeds and, with its 95 %
interval, the difference from squeeze (a bootstrap over the test images of all seeds).
"""

import argparse
import contextlib
import io
import json
import math
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import numpy as np
from PIL import Image

import convert_dataset
import run
from library.dataset.splits import read_splits
from library.evaluation.predictions import predict_batches
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import load_snapshot
from project.load_network import make_inputs_for
from project.settings import read_settings

WALLPAPERS = "/usr/share/backgrounds"
FITS = {
    "squeeze": {"name": "squeeze"},
    "crop 0.875": {"name": "crop", "crop_fraction": 0.875},
    "crop 1": {"name": "crop", "crop_fraction": 1.0},
    "pad": {"name": "pad"},
}
# Shares of labeled images.
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
# Crops of each wallpaper, and the part of its width that they come from.
CROPS = {"train": (8, 0.0, 0.6), "validation": (2, 0.6, 1.0), "test": (10, 0.6, 1.0)}
MIN_WIDTH, MAX_EDGE, RESAMPLES = 1500, 500, 2000


def main() -> None:
    """Measure all fits and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wallpapers", type=Path, default=Path(WALLPAPERS))
    parser.add_argument("--images", type=Path, help="labeled images instead of wallpapers")
    parser.add_argument("--max_aspect", type=float, default=3, help="3: from 1:3 to 3:1")
    parser.add_argument("--seeds", type=int, default=3)
    options, words = parser.parse_known_args()
    hits: dict[str, list[np.ndarray]] = {name: [] for name in FITS}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            if options.images:
                split_images(options.images, Path(folder), seed)
            else:
                crop_wallpapers(options.wallpapers, Path(folder), seed, options.max_aspect)
            for name, found in measure(Path(folder), [*words, "--random_seed", str(seed)]):
                hits[name].append(found)
                print(f"seed {seed}, {name}: {found.mean():.4f}", file=sys.stderr, flush=True)
    print(json.dumps(summarize(hits)))


def split_images(images: Path, folder: Path, seed: int) -> None:
    """Copy labeled images into splits."""
    generator = random.Random(seed)
    for classes in sorted(each for each in images.iterdir() if each.is_dir()):
        files = sorted(classes.iterdir())
        generator.shuffle(files)
        begin = 0.0
        for split, share in SHARES.items():
            part = files[round(begin * len(files)) : round((begin + share) * len(files))]
            begin += share
            target = folder / "images" / split / classes.name
            target.mkdir(parents=True)
            for each in part:
                shutil.copy(each, target)


def crop_wallpapers(wallpapers: Path, folder: Path, seed: int, max_aspect: float) -> None:
    """Write crops as JPEGs, with any shape from 1:max_aspect to max_aspect:1."""
    generator = random.Random(seed)
    for path in sorted(wallpapers.rglob("*.jpg")):
        with Image.open(path) as image:
            # The same in several sizes says so in its name.
            if image.width < MIN_WIDTH or re.search(r"_\d+x\d+$", path.stem):
                continue
            image.draft("RGB", (2400, 2400))
            image = image.convert("RGB")
        image.thumbnail((2400, 2400))
        for split, (count, left, right) in CROPS.items():
            target = folder / "images" / split / path.stem
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                crop = random_crop(image, generator, (left, right), max_aspect)
                crop.save(target / f"{number}.jpg", quality=90)


def random_crop(
    image: Image.Image,
    generator: random.Random,
    part: tuple[float, float],
    max_aspect: float,
) -> Image.Image:
    """Return a crop of a part of an image's width, (left, right) in shares of it."""
    left, right = part
    aspect = max_aspect ** generator.uniform(-1, 1)
    pixels = generator.uniform(0.03, 0.1) * image.width * image.height
    most = ((right - left) * image.width, image.height)
    scale = min(1.0, most[0] / math.sqrt(pixels * aspect), most[1] / math.sqrt(pixels / aspect))
    width, height = scale * math.sqrt(pixels * aspect), scale * math.sqrt(pixels / aspect)
    x = left * image.width + generator.uniform(0, most[0] - width)
    y = generator.uniform(0, most[1] - height)
    crop = image.crop((int(x), int(y), int(x + width), int(y + height)))
    crop.thumbnail((MAX_EDGE, MAX_EDGE))
    return crop


def measure(folder: Path, words: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each fit with a boolean for each test image: whether its class was predicted."""
    for split in SHARES:
        arguments = ["--dataset_dir", str(folder / "images" / split), "--tfrecord_filename", split]
        convert_dataset.main([*arguments, "--tfrecord_dir", str(folder / "data" / split)])
    words = ["--data_dir", str(folder / "data"), "--report=false", *words]
    has_crop = any("crop" in each for each in read_settings(words).hyperparameters.augmentations)
    for name, fit in FITS.items():
        run_dir = folder / ("run" if has_crop else name)
        arguments = [*words, "--run_dir", str(run_dir), "--fit", fit["name"]]
        if "crop_fraction" in fit:
            arguments += ["--crop_fraction", str(fit["crop_fraction"])]
        if not run_dir.exists():
            with contextlib.redirect_stdout(io.StringIO()):
                if code := run.main(["train", *arguments]):
                    sys.exit(code)
        settings = read_settings(arguments)
        latest = Checkpoints(run_dir / "checkpoints").paths()[0]
        snapshot = load_snapshot(latest, run_dir / "best")
        snapshot = replace(snapshot, data={**snapshot.data, "fit": fit})
        (test,) = read_splits(folder / "data", "test")
        inputs = make_inputs_for(snapshot, settings, test)
        found = predict_batches(snapshot.network, inputs.named_batches())
        yield name, found.classes == found.labels


def summarize(hits: dict[str, list[np.ndarray]]) -> dict[str, dict]:
    """Return the accuracy of each fit, and its difference from squeeze with an interval."""
    generator = np.random.default_rng(0)
    summary = {}
    for name, found in hits.items():
        difference = np.concatenate(found).astype(float) - np.concatenate(hits["squeeze"])
        rows = generator.integers(len(difference), size=(RESAMPLES, len(difference)))
        summary[name] = {
            "accuracy": round(float(np.mean([each.mean() for each in found])), 4),
            "by_seed": [round(float(each.mean()), 4) for each in found],
            "difference": round(float(difference.mean()), 4),
            "interval": np.quantile(difference[rows].mean(1), [0.025, 0.975]).round(4).tolist(),
        }
    return summary


if __name__ == "__main__":
    main()
