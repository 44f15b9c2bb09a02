"""The command line: labelled images → TFRecord shards and a manifest."""

import argparse
import functools
import sys
from pathlib import Path

from library.dataset.classes import find_training_manifest, order_classes
from library.dataset.conversion import ConversionOptions, convert
from library.dataset.sources import find_files
from library.errors import answer


def main(arguments):
    """Convert."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset_dir")
    parser.add_argument("--tfrecord_filename")
    parser.add_argument("--tfrecord_dir", type=Path)
    parser.add_argument("--max_edge", type=int, default=384)
    o = parser.parse_args(arguments)
    t = find_training_manifest(o.tfrecord_dir, o.tfrecord_filename)
    manifest = convert(
        lambda: find_files(o.dataset_dir, o.tfrecord_dir),
        o.tfrecord_dir,
        o.tfrecord_filename,
        ConversionOptions(),
        functools.partial(order_classes, training_manifest=t),
        o.dataset_dir,
    )
    print(f"{o.tfrecord_dir}: {manifest.examples:,} images of {len(manifest.classes)} classes")


if __name__ == "__main__":
    sys.exit(answer(main, sys.argv[1:], "convert_dataset.py"))
