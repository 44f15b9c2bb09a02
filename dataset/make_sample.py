"""Make the bundled sample, a slice of Fashion-MNIST as PNG files in one zip; with --all, all of it.

From the project's folder: python -m dataset.make_sample. The same call gives the same bytes.
"""

import argparse
import gzip
import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from library.errors import DataError, run_main
from library.files import new_file
from library.messages import counted

SOURCE = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).with_name("sample.zip")

# As Zalando names them, in the order of the labels; a folder's name can't hold the slash of
# "T-shirt/top".
CLASSES = (
    "T-shirt_top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Images of each class, of 6,000 in the train file and 1,000 in the other.
SLICE = {"train": 400, "validation": 50, "test": 100}
ALL = {"train": 5500, "validation": 500, "test": 1000}

LICENSE = """\
The images are from Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist

The MIT License (MIT)

Copyright 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read_idx(path):
    """Give the array of bytes in a gzipped idx file. Raises DataError where there is none."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: install Debian's package dataset-fashion-mnist, "
            "or say with --source which folder holds its four files"
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, and each dimension.
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if zeros != 0 or kind != 8:
        raise DataError(f"{path} holds no bytes in the idx format")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_images(archive, split, images, labels, skip, count):
    """Write `count` images of each class after the first `skip`, in the order of the file."""
    for label, name in enumerate(CLASSES):
        chosen = images[labels == label][skip : skip + count]
        if len(chosen) < count:
            raise DataError(
                f"only {counted(len(chosen), 'image')} of {name} for {split}, {count} were wanted"
            )
        for number, image in enumerate(chosen, start=1):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG", compress_level=9)
            write_member(archive, f"{split}/{name}/{number:05d}.png", png.getvalue())


def write_member(archive, name, content):
    """Write one member with a fixed date and system, or two calls would not give equal bytes."""
    member = zipfile.ZipInfo(name, date_time=(2017, 8, 25, 0, 0, 0))
    member.create_system = 3  # Unix, wherever this runs
    member.external_attr = 0o644 << 16
    # Stored: PNGs are deflated already.
    archive.writestr(member, content, zipfile.ZIP_STORED)


def make(source, output, counts):
    """Write the zip `output` with `counts` images of each class for each split."""
    train = read_idx(source / "train-images-idx3-ubyte.gz")
    train_labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    test = read_idx(source / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(source / "t10k-labels-idx1-ubyte.gz")
    with new_file(output) as file, zipfile.ZipFile(file, "w") as archive:
        write_member(archive, "LICENSE", LICENSE.encode())
        # Validation follows train in the same file: no image is in both.
        write_images(archive, "train", train, train_labels, 0, counts["train"])
        write_images(
            archive, "validation", train, train_labels, counts["train"], counts["validation"]
        )
        write_images(archive, "test", test, test_labels, 0, counts["test"])


def main(arguments):
    """Make the zip that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("output", nargs="?", type=Path, help=f"the zip to write ({SAMPLE})")
    parser.add_argument("--all", action="store_true", help="all 70,000 images, to OUTPUT")
    parser.add_argument(
        "--source", type=Path, default=SOURCE, help="folder of the four idx files (%(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show where an error came from")
    options = parser.parse_args(arguments)
    if options.all and options.output is None:
        parser.error("--all would replace the sample: say which file to write")
    output = options.output or SAMPLE
    make(options.source, output, ALL if options.all else SLICE)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "make_sample.py"))
