"""The bytes of a labelled file, wherever it is."""

import os
import struct
import zlib
from pathlib import Path


def read_content(place):
    """Give the bytes of a LabelledFile from its `place`. Raises OSError or ValueError."""
    if len(place) == 1:
        with open(place[0], "rb") as file:  # noqa: PTH123: this runs once for each image
            return file.read()
    archive, offset, stored, deflated = place
    with Path(archive).open("rb") as file:
        file.seek(offset)
        # The name and the extra field may differ from those in the central directory.
        name_length, extra_length = struct.unpack("<26xHH", file.read(30))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        content = file.read(stored)
    return zlib.decompress(content, wbits=-15) if deflated else content
