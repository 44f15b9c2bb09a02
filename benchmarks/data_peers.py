"""Contenders for conversion and inputs in the peers' environment: img2dataset and Grain."""

import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.data import crop, find_images, read

CORES = len(os.sched_getaffinity(0))


def img2dataset(folder: str) -> Iterator[int | None]:
    """Convert a list of URLs, here of local files, into tar archives of at most 384 pixels."""
    from img2dataset import download

    paths = find_images(folder)
    while True:
        with tempfile.TemporaryDirectory() as work:
            urls = Path(work, "urls.txt")
            urls.write_text("".join(f"{each.as_uri()}\n" for each in paths), encoding="utf-8")
            yield
            download(
                url_list=str(urls),
                output_folder=f"{work}/output",
                output_format="webdataset",
                processes_count=CORES,
                thread_count=2 * CORES,
                image_size=384,
                resize_mode="keep_ratio_largest",
                resize_only_if_bigger=True,
                encode_quality=95,
                number_sample_per_shard=max(1, len(paths) // 4),
                enable_wandb=False,
            )
            yield len(paths)
            # It skips what it can't read.
            found = [json.loads(x.read_text()) for x in Path(work, "output").glob("*_stats.json")]
            if sum(each["successes"] for each in found) != len(paths):
                raise RuntimeError("img2dataset has skipped images")


def grain(folder: str) -> Iterator[int | None]:
    """Read class folders, crop, flip and batch with Grain, in two processes."""
    from grain import MapDataset, MultiprocessingOptions, ReadOptions

    paths = find_images(folder)
    batches = (
        MapDataset.source(paths)
        .seed(0)
        .shuffle()
        .repeat()
        .random_map(make_example)
        .batch(32)
        # By default, each process would make 500 batches while the clock stands still.
        .to_iter_dataset(ReadOptions(num_threads=1, prefetch_buffer_size=1))
        .mp_prefetch(MultiprocessingOptions(num_workers=2))
    )
    iterator = iter(batches)
    # Several epochs, beside which the few batches made ahead do not matter.
    count = 4 * len(paths) // 32
    while True:
        yield
        for _ in range(count):
            next(iterator)
        yield 32 * count


def make_example(path: Path, generator: np.random.Generator) -> np.ndarray:
    """Return a random part of an image, flipped or not: uint8 (224, 224, 3)."""
    seeded = random.Random(int(generator.integers(2**32)))
    image: Image.Image = crop(read(path, (224, 224)), (224, 224), seeded)
    return np.asarray(ImageOps.mirror(image) if seeded.random() < 0.5 else image)
