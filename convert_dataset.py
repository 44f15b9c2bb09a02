"""The command line: labelled images → TFRecord shards and a manifest."""

import argparse
import sys
from pathlib import Path

from library.dataset.conversion import convert
from library.errors import answer


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset_dir")
    parser.add_argument("--tfrecord_filename")
    parser.add_argument("--tfrecord_dir", type=Path)
    parser.add_argument("--max_edge", type=int, default=384)
    o = parser.parse_args(arguments)
    manifest = convert(o.dataset_dir, o.tfrecord_dir, o.tfrecord_filename)
    print(
        f"{o.tfrecord_dir}: {manifest.examples:,} images of {len(manifest.classes)} classes in {len(manifest.shards)} shards"
    )


if __name__ == "__main__":
    sys.exit(answer(main, sys.argv[1:], "convert_dataset.py"))
