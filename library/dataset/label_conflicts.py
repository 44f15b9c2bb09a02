"""The same image with different labels, in a split or in two, found by a key of 12 bytes each.

The keys of a split lie beside its manifest, so that another split is compared without reading its
shards. Without them, as after a conversion by an earlier version, nothing is compared.
"""

import logging
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import google_crc32c
import numpy as np

from library.dataset.manifest import Manifest, find_manifest
from library.dataset.records import Record, read_frames, read_record
from library.dataset.sources.base import labels_of
from library.errors import DataError, printable
from library.files import write_file
from library.messages import counted

logger = logging.getLogger(__name__)

_KEY = np.dtype([("content", "<u8"), ("labels", "<u4")])
KEY_BYTES = _KEY.itemsize
_HASH_BYTES = 32
# The CRC-32C of a whole image takes two microseconds, a cryptographic hash fifty. Its 32 bits alone
# would confuse images of a large split; those of another range, and the size, make that improbable.
_TAIL_BYTES = 4096


def image_key(encoded: bytes, label: str | tuple[str, ...]) -> bytes:
    """Return 12 bytes: equal in the first 8 for equal images, in the others for equal labels."""
    crc, tail_crc = google_crc32c.value(encoded), zlib.crc32(encoded[-_TAIL_BYTES:], len(encoded))
    labels = "\0".join(sorted(labels_of(label)))
    return struct.pack("<III", crc, tail_crc, zlib.crc32(labels.encode("utf-8", "surrogateescape")))


def keys_path(manifest: Manifest) -> Path:
    """Return the path of the keys of a split's images."""
    return manifest.folder / f".{manifest.name}.keys"


def read_keys(manifest: Manifest) -> bytes:
    """Return the keys of a split's images, in the order of its records, or b"" if there are none.

    Those of another conversion of the split are none.
    """
    try:
        content = keys_path(manifest).read_bytes()
    except OSError:
        return b""
    keys = content[_HASH_BYTES:]
    is_current = content[:_HASH_BYTES] == bytes.fromhex(manifest.fingerprint)
    return keys if is_current and _are_complete(keys, manifest) else b""


def write_keys(manifest: Manifest, keys: bytes) -> None:
    """Write the keys of a split's images, in the order of its records; do nothing if some lack."""
    if _are_complete(keys, manifest):
        write_file(keys_path(manifest), bytes.fromhex(manifest.fingerprint) + keys)


def check_label_conflicts(manifest: Manifest, keys: bytes, others: Iterable[str]) -> None:
    """Log whether images of a split have other labels there or elsewhere.

    Args:
        manifest: The split.
        keys: Those of its images, in the order of its records.
        others: The names of the splits to compare it with, where they are converted.
    """
    if not _are_complete(keys, manifest):
        return
    splits = [manifest, *_find_splits(manifest, others)]
    arrays = [np.frombuffer(keys, _KEY)]
    arrays += [np.frombuffer(read_keys(each), _KEY) for each in splits[1:]]
    count, positions = find_conflicts(arrays)
    if not count:
        return
    found = [_describe(splits[split], position) for split, position in positions]
    more = f" (and {counted(count - 1, 'image')} more)" if count > 1 else ""
    logger.warning(
        f"the same image has different labels: {' and '.join(found)}{more}; keep it under one"
    )


def find_conflicts(splits: Sequence[np.ndarray]) -> tuple[int, list[tuple[int, int]]]:
    """Count the images of the first split that have other labels there or in another split.

    Args:
        splits: The keys of each split's images.

    Returns:
        (number of such images, counting equal ones once; two of the first one, as (split, position
        in it), or none).
    """
    keys = np.concatenate(splits)
    _, firsts, groups = np.unique(keys["content"], return_index=True, return_inverse=True)
    first = firsts[groups]
    # Images whose labels are not those of the first equal one, which is in the first split.
    others = np.flatnonzero((keys["labels"] != keys["labels"][first]) & (first < len(splits[0])))
    if not len(others):
        return 0, []
    one = first[others].min()
    other = others[first[others] == one][0]
    ends = np.cumsum([len(each) for each in splits])
    pairs = []
    for number in (int(one), int(other)):
        split = int(np.searchsorted(ends, number, side="right"))
        pairs.append((split, number - int(ends[split]) + len(splits[split])))
    return len(np.unique(first[others])), pairs


def _are_complete(keys: bytes, manifest: Manifest) -> bool:
    return len(keys) == manifest.examples * KEY_BYTES


def _find_splits(manifest: Manifest, names: Iterable[str]) -> list[Manifest]:
    """Return the splits in the same folder, or in folders of their names beside it."""
    folder = Path(manifest.folder)
    others = []
    for name in names:
        places = (folder, folder.parent / name) if name != manifest.name else ()
        found = (find_manifest(place, name) for place in places)
        others += [each for each in found if each][:1]
    return others


def _describe(manifest: Manifest, position: int) -> str:
    """Return the name and the labels of an image, as `train/cat/1.jpg is 'cat'`."""
    record = _read_record(manifest, position)
    if record is None:
        return f"image {position} of {manifest.name}"
    labels = " and ".join(map(repr, map(printable, record.texts))) or "without a class"
    return f"{printable(f'{manifest.name}/{record.filename}')} is {labels}"


def _read_record(manifest: Manifest, position: int) -> Record | None:
    """Return the record at a position of a split, or None if it can't be read."""
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        if position < shard.examples:
            with suppress(OSError, DataError), path.open("rb") as file:
                _, content = next(islice(read_frames(file, path), position, None))
                return read_record(content, path, multi_label=manifest.is_multi_label)
            break
        position -= shard.examples
    return None
