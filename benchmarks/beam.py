"""Measure conversion on Beam: speed against the local engine, memory of a worker at scale.

    python -m benchmarks.beam speed [--images 20000] [--rounds 3] [--photographs FOLDER]
    python -m benchmarks.beam memory [--counts 10000 100000 1000000]

speed converts 500 photographs, repeated, with both engines in turn, Beam on the DirectRunner with
two processes, and prints the median ratio. memory has one worker write one shard of tiny images,
which all lie at the same place in a file, and prints its peak memory and its time per image; then
it does the same with this machine's list of files. The last line is a JSON object. Under load, only
the ratio of processor times means something.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.data import find_images, write_crops
from benchmarks.programs import ROOT, call_project, cpu_seconds

BEAM = "--direct_num_workers=2 --direct_running_mode=multi_processing"
ENGINES = {"local": [], "beam": ["--engine", "beam", "--beam_options", BEAM]}
SHARDS = 8
DISTINCT = 500


def repeat(paths: list[Path], count: int) -> None:
    """Link the files under other names, until there are `count`."""
    for number in range(len(paths), count):
        path = paths[number % len(paths)]
        os.link(path, path.with_stem(f"{path.stem}_{number // len(paths)}"))


def convert(source: Path, folder: Path, engine: str) -> tuple[float, float]:
    """Convert with the command line, and return (seconds, processor seconds)."""
    names = ("--tfrecord_filename", "train", "--tfrecord_dir", folder, "--num_shards", SHARDS)
    workers = ("--num_workers", 1 if engine == "beam" else 2)
    words = ("--dataset_dir", source, *names, *workers, *ENGINES[engine])
    called = call_project("convert_dataset.py", *words)
    return called.seconds, called.cpu_seconds


def measure_speed(folder: Path, photographs: Path, count: int, rounds: int) -> dict[str, float]:
    """Return the speed of Beam over that of the local engine, by wall clock and processor time."""
    source = folder / "images"
    write_crops(str(source), str(photographs), "500x375", str(min(DISTINCT, count)), "1")
    repeat(find_images(source), count)
    ratios = []
    for number in range(rounds):
        found = {}
        # In turn, so that what else happens on the machine slows both down.
        for engine in ("local", "beam") if number % 2 == 0 else ("beam", "local"):
            found[engine] = convert(source, folder / engine, engine)
            print(f"{engine}: {count / found[engine][0]:.0f} images/s", flush=True)
        hashes = [
            [shard["sha256"] for shard in json.loads(manifest.read_text("utf-8"))["shards"]]
            for manifest in (folder / engine / "train.manifest.json" for engine in ENGINES)
        ]
        if hashes[0] != hashes[1]:
            sys.exit("benchmark: the engines wrote different bytes")
        ratios.append([a / b for a, b in zip(found["local"], found["beam"], strict=True)])
        for engine in ENGINES:
            shutil.rmtree(folder / engine)
    wall, processor = (statistics.median(each) for each in zip(*ratios, strict=True))
    return {"beam_speed_to_local": round(wall, 2), "by_processor_time": round(processor, 2)}


def tiny_image(folder: Path) -> Any:
    """Write a JPEG of 32x32 pixels, and return its location."""
    from library.dataset.locations import RangeLocation

    content = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(content, "JPEG")
    (folder / "tiny.jpg").write_bytes(content.getvalue())
    return RangeLocation(str(folder / "tiny.jpg"), 0, len(content.getvalue()))


def peak_memory() -> float:
    """Return the peak resident memory of this process and its largest child, in MB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(each).ru_maxrss for each in kinds) / 1e3


def write_one_shard(count: int, folder: Path) -> tuple[float, float, float]:
    """Write a shard as a worker does: (peak memory in MB, µs, processor µs per image)."""
    from library.beam.pipeline import import_beam

    import_beam()
    from library.beam.shared_folder import LocalFolder
    from library.beam.write_shard import WriteShard, list_name
    from library.dataset.encode_record import Task
    from library.dataset.options import ConversionOptions

    location = tiny_image(folder)
    with (folder / list_name(0)).open("wb") as file:
        for first in range(0, count, 64):
            names = (f"class/{number}.jpg" for number in range(first, min(first + 64, count)))
            pickle.dump([Task(location, 0, "class", name) for name in names], file)
    step = WriteShard(LocalFolder(folder), ConversionOptions(), count)
    step.setup()
    start, worked = time.perf_counter(), cpu_seconds(resource.RUSAGE_SELF)
    list(step.process((0, 0)))
    step.teardown()
    seconds = time.perf_counter() - start
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    worked = sum(map(cpu_seconds, kinds)) - worked
    return peak_memory(), seconds / count * 1e6, worked / count * 1e6


def list_files(count: int, folder: Path) -> tuple[float, float, float]:
    """Index files and write the lists of eight shards, as the machine that starts a job does."""
    from library.dataset.file_index import FileIndex
    from library.dataset.shard_division import batches, shard_ends
    from library.dataset.sources.base import LabeledFile

    location = tiny_image(folder)
    start, worked = time.perf_counter(), cpu_seconds(resource.RUSAGE_SELF)
    names = (f"class/{number}.jpg" for number in range(count))
    with contextlib.closing(
        FileIndex(LabeledFile(name, "class", 600, 0, location) for name in names)
    ) as index:
        first = 0
        for number, end in enumerate(shard_ends(count, SHARDS)):
            with (folder / f"{number}.files").open("wb") as file:
                for batch in batches(index, first, end, ("class",)):
                    pickle.dump(batch, file, protocol=5)
            first = end
    seconds = time.perf_counter() - start
    return (
        peak_memory(),
        seconds / count * 1e6,
        (cpu_seconds(resource.RUSAGE_SELF) - worked) / (count) * 1e6,
    )


MEASUREMENTS = {"worker": write_one_shard, "list": list_files}


def measure_memory(counts: list[int]) -> dict[str, float]:
    """Return, for the largest count against the smallest, the growth of memory and time."""
    growth: dict[str, float] = {}
    for name in MEASUREMENTS:
        found = []
        for count in counts:
            # In a process of its own, because peaks stay.
            command = [sys.executable, "-m", "benchmarks.beam", "--one", name, str(count)]
            output = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
            memory, wall, processor = json.loads(output.stdout)
            found.append((memory, processor))
            print(
                f"{name}, {count:,} images: {memory:.0f} MB; an image takes {wall:.0f} µs, of "
                f"processors {processor:.0f} µs",
                flush=True,
            )
        growth[f"{name}_memory_mb"] = round(found[-1][0])
        growth[f"{name}_memory_growth"] = round(found[-1][0] / found[0][0], 2)
        growth[f"{name}_time_per_image_growth"] = round(found[-1][1] / found[0][1], 2)
    return growth


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield the path of an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("speed", "memory"), default="speed")
    parser.add_argument("--photographs", type=Path, default=Path("/usr/share/backgrounds"))
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with temporary_folder() as folder:
        if options.one:
            name, count = options.one
            print(json.dumps(MEASUREMENTS[name](int(count), folder)))
        elif options.what == "speed":
            source = options.photographs
            print(json.dumps(measure_speed(folder, source, options.images, options.rounds)))
        else:
            print(json.dumps(measure_memory(options.counts)))


if __name__ == "__main__":
    main()
