"""Make the bundled sample: a slice of Fashion-MNIST as PNG files in a zip; with --all, all of it.

Run `python -m dataset.make_sample` in the project's folder. The same call writes the same bytes.
"""

import argparse
import gzip
import io
import struct
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from library.errors import DataError, run_main
from library.files import new_file
from library.messages import counted

SOURCE = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).with_name("sample.zip")

# Zalando's names in the order of the labels; a folder's name can't have the slash of
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

# Images per class; the train file has 6,000, the test file 1,000.
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


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in a gzipped idx file. Raises DataError."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: install Debian's package dataset-fashion-mnist, "
            "or name the folder of its four files with --source"
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, and each dimension.
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if zeros != 0 or kind != 8:
        raise DataError(f"{path} is not an idx file of bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_images(
    archive: zipfile.ZipFile, split: str, source: Path, part: str, skip: int, count: int
) -> None:
    """Write images of each class as PNG files, in the order of the idx files.

    Args:
        archive: The zip.
        split: The split's folder in the zip.
        source: Folder of the idx files.
        part: `train` or `t10k`.
        skip: Images of each class to skip.
        count: Images of each class to write.
    """
    images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
    for label, name in enumerate(CLASSES):
        chosen = images[labels == label][skip : skip + count]
        if len(chosen) < count:
            raise DataError(
                f"only {counted(len(chosen), 'image')} of {name} for {split}, {count} are needed"
            )
        for number, image in enumerate(chosen, start=1):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG", compress_level=9)
            write_member(archive, f"{split}/{name}/{number:05d}.png", png.getvalue())


def write_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write one member with a fixed date and system, so that equal calls write equal bytes.

    Args:
        archive: The zip.
        name: The member's path.
        content: Its bytes.
    """
    member = zipfile.ZipInfo(name, date_time=(2017, 8, 25, 0, 0, 0))
    member.create_system = 3  # Unix, wherever this runs
    member.external_attr = 0o644 << 16
    # Stored, because PNGs are compressed already.
    archive.writestr(member, content, zipfile.ZIP_STORED)


def make(source: Path, output: Path, counts: Mapping[str, int]) -> None:
    """Write the sample.

    Args:
        source: Folder of the idx files.
        output: The zip to write.
        counts: {split: images of each class}.
    """
    with new_file(output) as file, zipfile.ZipFile(file, "w") as archive:
        write_member(archive, "LICENSE", LICENSE.encode())
        write_images(archive, "train", source, "train", 0, counts["train"])
        # Validation follows train in the same file, so no image is in both.
        write_images(archive, "validation", source, "train", counts["train"], counts["validation"])
        write_images(archive, "test", source, "t10k", 0, counts["test"])


def main(arguments: Sequence[str]) -> None:
    """Make the zip that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("output", nargs="?", type=Path, help=f"zip to write ({SAMPLE})")
    parser.add_argument("--all", action="store_true", help="write all 70,000 images to OUTPUT")
    parser.add_argument(
        "--source", type=Path, default=SOURCE, help="folder of the four idx files (%(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    if options.all and options.output is None:
        parser.error("--all needs OUTPUT, so that it does not replace the sample")
    output = options.output or SAMPLE
    make(options.source, output, ALL if options.all else SLICE)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "make_sample.py"))
