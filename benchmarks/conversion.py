"""Conversion by the project's command, by a Pillow loop, and reading alone; quality and memory.

    python -m benchmarks.conversion [--photographs FOLDER] [--growth 100000]

prints how good the images are, and how memory and time grow with the number of images. The last
line is a JSON object. benchmarks/cases.yaml says which speeds are compared.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.data import find_images, write_crops
from benchmarks.programs import convert
from library.dataset.images import ImageOptions, convert_image

MAX_EDGE = 384
QUALITY = 95
COUNTS = (10_000, 100_000, 300_000, 1_000_000)


def drop_from_memory(paths: Sequence[Path]) -> None:
    """Drop the files from the system's cache, as if the dataset were larger than memory."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours(folder: str) -> Iterator[int | None]:
    """Convert with the command line."""
    paths = find_images(folder)
    while True:
        with tempfile.TemporaryDirectory() as output:
            drop_from_memory(paths)
            yield
            convert("train", folder, output)
            yield len(paths)


def pillow(folder: str, count: str) -> Iterator[int | None]:
    """Convert some images as a plain script would: open, convert, resize with Lanczos, save."""
    paths = find_images(folder)
    # It has no start-up time, so that a part of the images is enough.
    paths = paths[:: max(1, len(paths) // int(count))]
    while True:
        with tempfile.TemporaryDirectory() as output:
            drop_from_memory(paths)
            yield
            for path in paths:
                with Image.open(path) as image:
                    image = image.convert("RGB")
                    image.thumbnail(
                        (MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS, reducing_gap=None
                    )
                    image.save(Path(output, path.name), "JPEG", quality=QUALITY)
            yield len(paths)


def read(folder: str) -> Iterator[int | None]:
    """Read the files, and do nothing with them."""
    paths = find_images(folder)
    while True:
        drop_from_memory(paths)
        yield
        for path in paths:
            path.read_bytes()
        yield len(paths)


def measure_quality(paths: Sequence[Path]) -> tuple[float, ...]:
    """Return how many dB our images are better than Lanczos: (detail, similarity).

    Detail: enlarged again, against the original. Similarity: against Lanczos before JPEG.
    """
    kept, like = [], []
    for path in paths:
        with Image.open(path) as image:
            original = image.convert("RGB")
        lanczos = original.copy()
        lanczos.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS, reducing_gap=None)
        theirs = io.BytesIO()
        lanczos.save(theirs, "JPEG", quality=QUALITY)
        ours = convert_image(path.read_bytes(), ImageOptions(MAX_EDGE, QUALITY))[0]
        results = [Image.open(each).convert("RGB") for each in (io.BytesIO(ours), theirs)]
        # At 12 megapixels nothing that 384 pixels can hold would differ: a quarter is compared.
        size = tuple(min(each, 1000 * each // max(original.size)) for each in original.size)
        large = original.resize(size, Image.Resampling.BOX)
        kept.append([psnr(large, each.resize(size, Image.Resampling.BICUBIC)) for each in results])
        like.append([psnr(lanczos, each) for each in results])
    return tuple(float(np.mean([a - b for a, b in each])) for each in (kept, like))


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two images, in dB."""
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return 10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9))


def watch_memory(peaks: list[int], end: threading.Event) -> None:
    """Add to `peaks`, until the end, the resident bytes of this process's descendants."""
    while not end.wait(0.02):
        total = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        peaks.append(total)


def measure_growth(folder: Path, counts: Sequence[int]) -> list[tuple[float, float]]:
    """Return (memory in MB, seconds per image) at each count of small images."""
    content = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(content, "JPEG")
    source = folder / "growth"
    made, results = 0, []
    for count in counts:
        for number in range(made, count):
            path = source / f"class_{number % 10}" / f"{number // 1000:04d}" / f"{number}.jpg"
            if number % 1000 < 10:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())
        made = count
        peaks, end, start = [0], threading.Event(), time.perf_counter()
        watcher = threading.Thread(target=watch_memory, args=(peaks, end))
        watcher.start()
        convert("train", source, folder / f"grown-{count}")
        end.set()
        watcher.join()
        seconds, memory = time.perf_counter() - start, max(peaks) / 1e6
        results.append((memory, seconds / count))
        print(f"{count:,} images: {memory:.0f} MB, {seconds / count * 1e6:.0f} µs an image")
    return results


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", default="/usr/share/backgrounds", help="folder of JPEGs")
    parser.add_argument("--growth", type=int, default=100_000, help="small images, at most")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for size, count in (("500x375", "200"), ("4000x3000", "40")):
            write_crops(f"{name}/{size}", options.photographs, size, count, "1")
            detail, likeness = measure_quality(find_images(f"{name}/{size}"))
            figures[f"psnr_kept_detail_{size}_db"] = detail
            figures[f"psnr_likeness_{size}_db"] = likeness
        counts = [count for count in COUNTS if count <= options.growth]
        if growth := measure_growth(Path(name), counts):
            figures["memory_mb"] = max(memory for memory, _ in growth)
            figures["memory_growth"] = growth[-1][0] / growth[0][0]
            figures["time_per_image_growth"] = growth[-1][1] / growth[0][1]
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
