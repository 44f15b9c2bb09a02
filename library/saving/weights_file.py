"""Checks of .keras and .weights.h5 files that Keras reads without a limit to their memory."""

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

import h5py

from library.messages import shown

WEIGHTS = "model.weights.h5"
# Keras compresses nothing. Someone else may have: weights shrink by a tenth, zeros to nothing.
_MAX_EXPANSION, _FLOOR_BYTES = 4, 64 << 20
# Of layers and their variables. A group may contain itself.
_MAX_ENTRIES = 50_000


def check_keras_file(path: str | Path) -> None:
    """Raise ValueError unless a .keras file, and the weights in it, fit into a few times its size.

    Also for other files: OSError, zipfile.BadZipFile.
    """
    stored = Path(path).stat().st_size
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(each.file_size for each in archive.infolist()), stored)
        if WEIGHTS in archive.namelist():
            check_weights(io.BytesIO(archive.read(WEIGHTS)), stored)


def check_weights(file: str | Path | BinaryIO, stored: int) -> None:
    """Raise ValueError unless the arrays of a .weights.h5 file are all in it, uncompressed.

    Args:
        file: The file, or its path. OSError if it is no HDF5 file.
        stored: The file's size in bytes.
    """
    with h5py.File(file) as weights:
        _check_size(_count_bytes(weights), stored)


def _count_bytes(weights: h5py.Group) -> int:
    """Return the size of all arrays, each as often as it is reached."""
    total = count = 0
    groups = [weights]
    while groups:
        group = groups.pop()
        for name in group:
            count += 1
            if count > _MAX_ENTRIES:
                raise ValueError(f"it has more than {_MAX_ENTRIES:,} entries")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{shown(name)} is a link to another place")
            each = group[name]
            if isinstance(each, h5py.Group):
                groups.append(each)
            elif isinstance(each, h5py.Dataset):
                if each.external or each.is_virtual:
                    raise ValueError(f"{shown(name)} is stored in another file")
                total += (each.size or 0) * each.dtype.itemsize
    return total


def _check_size(size: int, stored: int) -> None:
    if size > max(_MAX_EXPANSION * stored, _FLOOR_BYTES):
        raise ValueError(f"its {stored:,} bytes would expand to {size:,}")
