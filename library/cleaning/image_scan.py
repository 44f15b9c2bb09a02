"""Read the images of a split as they are stored: to find duplicates, and to draw thumbnails."""

import io
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from library.dataset.duplicates import (
    SIGNATURE_BYTES,
    exact_hash,
    find_groups,
    perceptual_hash,
    signature,
)
from library.dataset.worker_pool import available_cores
from library.errors import DataError
from library.evaluation.predictions import late_bar
from library.inputs.corruption import explain_source_errors
from library.inputs.examples import ExampleSource

_BATCH = 256
# Larger images are decoded at a quarter of their edges, which is enough for a hash.
_MIN_REDUCED_BYTES = 6_000
# Of 128: a perceptual hash with fewer is that of a plain surface.
_MIN_BITS = 12
THUMBNAIL_PIXELS = 160


@dataclass(frozen=True)
class ScannedImages:
    """The images of a split, in order.

    Attributes:
        names: As in ImageOutputs.
        labels: As in ImageOutputs.
        groups: Indices of images that are duplicates of each other.
    """

    names: Sequence[str]
    labels: np.ndarray
    groups: Sequence[np.ndarray]


def scan_images(source: ExampleSource) -> ScannedImages:
    """Read every image of a split. Raises DataError if one is damaged."""
    count = source.count
    exact, perceptual = np.zeros(count, np.uint64), np.zeros((count, 2), np.uint64)
    signatures = np.zeros((count, SIGNATURE_BYTES), np.int8)
    names: list[str] = []
    labels: list[np.ndarray] = []
    with explain_source_errors([source]), ThreadPoolExecutor(available_cores()) as pool:
        for encoded, some_labels, some_names in _batches(source):
            for row, found in enumerate(pool.map(_hash, encoded), len(names)):
                exact[row], perceptual[row] = found[:2]
                signatures[row] = np.frombuffer(found[2], np.int8)
            names += [each.decode("utf-8", "replace") for each in some_names]
            labels.append(some_labels)
    groups = list(find_duplicates(exact, perceptual, signatures))
    return ScannedImages(names, np.concatenate(labels), groups)


def find_duplicates(
    exact: np.ndarray, perceptual: np.ndarray, signatures: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield groups of duplicates. Plain images, of any color, look alike: there only equal ones."""
    is_plain = np.bitwise_count(perceptual).sum(1) < _MIN_BITS
    for rows in (np.flatnonzero(~is_plain), np.flatnonzero(is_plain)):
        equal, alike = find_groups(exact[rows], perceptual[rows], signatures[rows])
        for group in equal if is_plain[rows].all() else [*equal, *alike]:
            yield rows[group]


def write_thumbnails(source: ExampleSource, positions: Collection[int], folder: Path) -> None:
    """Write <position>.jpg for some images.

    Args:
        source: The split.
        positions: Positions in its order, from 0.
        folder: Where to write them.
    """
    wanted = np.zeros(source.count, bool)
    wanted[list(positions)] = True
    folder.mkdir(exist_ok=True)
    position = 0
    with explain_source_errors([source]):
        for encoded, *_ in _batches(source):
            for each in np.flatnonzero(wanted[position : position + len(encoded)]).tolist():
                path = folder / thumbnail_name(position + each)
                path.write_bytes(_draw_thumbnail(encoded[each]))
            position += len(encoded)


def thumbnail_name(position: int) -> str:
    """Return the file name of an image's thumbnail."""
    return f"{position}.jpg"


def _batches(source: ExampleSource) -> Iterator[tuple[list[bytes], np.ndarray, list[bytes]]]:
    """Yield (encoded images, labels, names), in order."""

    def read(position: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        encoded, label = source.parse(key, "encoded")
        return encoded, label, source.name(position, key)

    keys = source.keys().enumerate()
    batches = keys.map(read, num_parallel_calls=available_cores(), deterministic=True)
    batches = batches.batch(_BATCH).prefetch(2)
    for encoded, labels, names in late_bar(
        batches, "reading", " batches", -(-source.count // _BATCH)
    ):
        yield encoded.numpy().tolist(), labels.numpy(), names.numpy().tolist()


def _hash(encoded: bytes) -> tuple[int, tuple[int, int], bytes]:
    is_large = len(encoded) >= _MIN_REDUCED_BYTES
    mode = cv2.IMREAD_REDUCED_GRAYSCALE_4 if is_large else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), mode)
    if pixels is None:
        raise DataError("a stored image is no JPEG that decodes; convert again")
    return exact_hash(encoded), perceptual_hash(pixels), signature(pixels)


def _draw_thumbnail(encoded: bytes) -> bytes:
    with Image.open(io.BytesIO(encoded)) as image:
        image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small = image.convert("L" if image.mode == "L" else "RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
