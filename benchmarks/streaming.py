"""How fast training is on shards that are streamed, beside training on the same shards on disk.

    python -m benchmarks.streaming --images FOLDER [--pairs 3] [--epochs 3] [--image_size 96] …

The images, a folder of classes, are converted into many shards. A web server in a process of its
own serves them; the cache is a fifth of the data and empty at each start. Trainings alternate.
Printed are the seconds of `fit` and the processor seconds of this process; the last line is a JSON
object with the medians of the ratios of neighboring trainings: above 1, streaming is faster.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import convert_dataset
from library.logging import start_logging
from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras

from library.dataset.manifest import read_manifest
from library.streaming.cache import close_caches
from library.training.distribution import Devices
from project import assembly
from project.commands.setup import read_data
from project.settings import read_settings

_SERVER = """
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
handler.func.log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder from another process; yield the URL."""
    words = [sys.executable, "-c", _SERVER, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def convert(options: argparse.Namespace, data_dir: Path) -> float:
    """Convert the images as training and as validation split. Return the gigabytes of both."""
    gigabytes = 0.0
    for split in ("train", "validation"):
        words = ["--dataset_dir", options.images, "--tfrecord_filename", split]
        words += ["--tfrecord_dir", str(data_dir / split), "--num_shards", str(options.shards)]
        convert_dataset.main(words)
        manifest = read_manifest(data_dir / split, split)
        gigabytes += sum(each.bytes for each in manifest.shards) / 1e9
    return gigabytes


def measure(folder: Path, options: argparse.Namespace, *data: str) -> dict[str, float]:
    """Train once. Return seconds and processor seconds."""
    close_caches()
    for name in ("run", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    settings = read_settings(
        [
            *data,
            *("--run_dir", str(folder / "run"), "--model", options.model, "--batch_size", "32"),
            *("--image_size", str(options.image_size), "--train_epochs", str(options.epochs)),
            # Of so few images that interleaving 16 shards would need most of them in the cache.
            *("--parallel_interleave_sources", "8"),
        ]
    )
    keras.utils.clear_session(free_memory=False)
    splits = read_data(settings.project, "train", "validation")
    trainer = assembly.make_trainer(settings, splits, Devices())
    start = time.perf_counter(), time.process_time()
    trainer.fit()
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    return {"seconds": seconds[0], "processor_seconds": seconds[1]}


def main() -> None:
    """Print the figures of each training, and the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--model", default="residual")
    options = parser.parse_args()
    start_logging("ERROR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        cached = convert(options, folder / "data") / 5
        with serve(folder / "data") as url:
            streamed = ("--data_dir", url, "--stream_gigabytes", f"{cached:.9f}")
            ways = {"local": ("--data_dir", str(folder / "data")), "streamed": streamed}
            measure(folder, argparse.Namespace(**{**vars(options), "epochs": 1}), *ways["local"])
            pairs = []
            for pair in range(options.pairs):
                found = {}
                for way in ("local", "streamed")[:: 1 if pair % 2 else -1]:
                    found[way] = measure(folder, options, *ways[way])
                    numbers = {key: round(value, 2) for key, value in found[way].items()}
                    print(way, numbers, flush=True)
                pairs.append(found)
            close_caches()
    ratios = {
        f"speed_by_{key}": round(
            statistics.median(each["local"][key] / each["streamed"][key] for each in pairs), 4
        )
        for key in ("seconds", "processor_seconds")
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
