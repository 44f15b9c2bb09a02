"""Measure conversion: speed against a plain Pillow loop, image quality, memory at scale.

    python -m benchmarks.conversion [--photographs FOLDER] [--images 1000] [--growth 100000]

Photographs are cropped from the wallpapers in /usr/share/backgrounds (Debian's mate-backgrounds,
lomiri-wallpapers-16.04, …) or from the images in a folder. The last line is a JSON object.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from library.dataset.images import ImageOptions, convert_image

ROOT = Path(__file__).resolve().parents[1]
MAX_EDGE = 384
QUALITY = 95
ROUNDS = 3
COUNTS = (10_000, 100_000, 300_000, 1_000_000)


def convert_plainly(paths: Sequence[Path], folder: Path) -> None:
    """Convert as a plain script would: open, convert, resize with Lanczos, save."""
    for path in paths:
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS, reducing_gap=None)
            image.save(folder / path.name, "JPEG", quality=QUALITY)


def drop_from_memory(paths: Sequence[Path]) -> None:
    """Drop the files from the system's cache, as if the dataset were larger than memory."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(paths: Sequence[Path]) -> int:
    """Read the files, and return their size."""
    return sum(len(path.read_bytes()) for path in paths)


def convert(source: Path, folder: Path) -> tuple[float, float, float]:
    """Convert with the command line; return (seconds, CPU seconds, peak memory in MB)."""
    command = [sys.executable, str(ROOT / "convert_dataset.py"), "--dataset_dir", str(source)]
    command += ["--tfrecord_filename", "train", "--tfrecord_dir", str(folder)]
    start, worked = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    largest = 0
    while process.poll() is None:
        largest = max(largest, tree_memory(process.pid))
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"benchmark: {' '.join(command)} failed")
    worked = cpu_seconds(resource.RUSAGE_CHILDREN) - worked
    return time.perf_counter() - start, worked, largest


def cpu_seconds(whose: int) -> float:
    """Return the CPU time used so far."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def tree_memory(pid: int) -> float:
    """Return the resident memory of a process and its children, in MB."""
    pages = 0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        for each in (pid, *children):
            pages += int(Path(f"/proc/{each}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        pass  # It has ended.
    return pages * resource.getpagesize() / 1e6


def find_photographs(folder: Path) -> list[Path]:
    """Return the paths of the JPEGs that photographs are cropped from."""
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg")]
    paths = [path for path in paths if not path.is_symlink()]
    if not paths:
        sys.exit(
            f"benchmark: no photographs in {folder}: install Debian's mate-backgrounds and "
            "lomiri-wallpapers-16.04, or name a folder with --photographs"
        )
    return paths


def multiply(paths: list[Path], times: int) -> list[Path]:
    """Copy each file, so that there are `times` as many; return all paths."""
    copies = []
    for number in range(1, times):
        for path in paths:
            copies.append(path.with_stem(f"{path.stem}_{number}"))
            shutil.copyfile(path, copies[-1])
    return paths + copies


def make_photographs(
    sources: Sequence[Path], folder: Path, size: tuple[int, int], count: int
) -> list[Path]:
    """Write random crops as JPEGs, and return their paths.

    Args:
        sources: The images to crop.
        folder: Where to write.
        size: (width, height) in pixels.
        count: How many to write.
    """
    generator = random.Random(0)
    paths = []
    each = -(-count // len(sources))
    for number in range(count):
        if number % each == 0:
            with Image.open(sources[number // each]) as opened:
                # Decoding all of a wallpaper for each small photograph would take an hour.
                opened.draft("RGB", (3 * size[0], 3 * size[1]))
                image = opened.convert("RGB")
        width, height = image.size
        crop = generator.uniform(0.5, 1) * min(width, height * size[0] / size[1])
        high = crop * size[1] / size[0]
        left, top = generator.uniform(0, width - crop), generator.uniform(0, height - high)
        box = (left, top, left + crop, top + high)
        path = folder / f"class_{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize(size, Image.Resampling.BICUBIC, box=box).save(path, "JPEG", quality=90)
        paths.append(path)
    return paths


def measure_speed(
    paths: Sequence[Path], peer_count: int, folder: Path, name: str
) -> tuple[float, ...]:
    """Compare our speed with the plain script's.

    Args:
        paths: The images.
        peer_count: How many of them the plain script converts; it has no start-up time.
        folder: Where to write.
        name: Of the measurement.

    Returns:
        Medians over rounds: our speed over the script's, the same per CPU second (less disturbed
        by other processes), and our speed over that of merely reading.
    """
    ratios = []
    some = paths[:: max(1, len(paths) // peer_count)]
    for number in range(ROUNDS):
        output = folder / f"{name}-{number}"
        (output / "peer").mkdir(parents=True)
        drop_from_memory(some)
        start, worked = time.perf_counter(), cpu_seconds(resource.RUSAGE_SELF)
        convert_plainly(some, output / "peer")
        slow = (time.perf_counter() - start) / len(some)
        slow_cpu = (cpu_seconds(resource.RUSAGE_SELF) - worked) / len(some)
        drop_from_memory(paths)
        start = time.perf_counter()
        read_all(paths)
        read = (time.perf_counter() - start) / len(paths)
        drop_from_memory(paths)
        seconds, cpu, _ = convert(paths[0].parents[1], output / "ours")
        seconds, cpu = seconds / len(paths), cpu / len(paths)
        ratios.append((slow / seconds, slow_cpu / cpu, read / seconds))
        shutil.rmtree(output)
        rates = (1 / each for each in (slow, seconds, read))
        print(f"{name}: peer %.0f, ours %.0f, only reading %.0f images/s" % tuple(rates))
    return tuple(statistics.median(each) for each in zip(*ratios, strict=True))


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
        seconds, _, memory = convert(source, folder / f"grown-{count}")
        results.append((memory, seconds / count))
        print(f"{count:,} images: {memory:.0f} MB, {seconds / count * 1e6:.0f} µs an image")
    return results


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=Path("/usr/share/backgrounds"))
    parser.add_argument("--images", type=int, default=1000, help="photographs of 500 by 375")
    parser.add_argument("--large", type=int, default=60, help="photographs of 12 megapixels")
    parser.add_argument("--growth", type=int, default=100_000, help="small images, at most")
    options = parser.parse_args()
    sources = find_photographs(options.photographs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = make_photographs(sources, folder / "small", (500, 375), options.images)
        large = make_photographs(sources, folder / "large", (4000, 3000), options.large)
        fitting = make_photographs(sources, folder / "fitting", (384, 288), 2 * options.images)
        small_ratio = measure_speed(multiply(small, 4), 1000, folder, "500x375 to 384")
        large_ratio = measure_speed(multiply(large, 6), 60, folder, "12 megapixels to 384")
        fitting_ratio = measure_speed(multiply(fitting, 20), 2000, folder, "nothing to resize")
        quality = [measure_quality(small[:200]), measure_quality(large[:40])]
        counts = [count for count in COUNTS if count <= options.growth]
        growth = measure_growth(folder, counts) if counts else []
    ratios = {
        "cores": len(os.sched_getaffinity(0)),
        "resize_500x375": round(small_ratio[0], 2),
        "resize_500x375_per_cpu_second": round(small_ratio[1], 2),
        "resize_12_megapixels": round(large_ratio[0], 2),
        "resize_12_megapixels_per_cpu_second": round(large_ratio[1], 2),
        "nothing_to_resize": round(fitting_ratio[0], 2),
        "nothing_to_resize_per_cpu_second": round(fitting_ratio[1], 2),
        "nothing_to_resize_against_reading": round(fitting_ratio[2], 2),
        "psnr_kept_detail_500x375_db": round(quality[0][0], 2),
        "psnr_kept_detail_12_megapixels_db": round(quality[1][0], 2),
        "psnr_likeness_500x375_db": round(quality[0][1], 2),
        "psnr_likeness_12_megapixels_db": round(quality[1][1], 2),
    }
    if growth:
        ratios["memory_mb"] = round(max(memory for memory, _ in growth))
        ratios["memory_growth"] = round(growth[-1][0] / growth[0][0], 2)
        ratios["time_per_image_growth"] = round(growth[-1][1] / growth[0][1], 2)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
