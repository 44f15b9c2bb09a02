"""Labeled images in existing TFRecord files, this project's or another program's."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from library.dataset.compression import find_compression, open_records
from library.dataset.locations import (
    Location,
    MemoryLocation,
    NoLocation,
    PixelLocation,
    RangeLocation,
    encode_pixels,
)
from library.dataset.manifest import SUFFIX, read_manifest
from library.dataset.record_fields import RecordClasses, RecordContent, RecordFields
from library.dataset.records import HEADER_BYTES, read_frames
from library.dataset.sources.base import NO_CLASS, LabeledFile, expand_records
from library.errors import DataError, reason_of


def find_in_records(source: str | Path, fields: RecordFields) -> Iterator[LabeledFile]:
    """Yield a labeled file for each record of TFRecord files.

    Args:
        source: A manifest, a TFRecord file, or a pattern of such files.
        fields: Which fields hold what. A manifest knows itself whether its data is multi-label.

    Raises:
        DataError: There are no such files, one is damaged, or the classes are contradictory.
    """
    paths, is_multi_label = _find_paths(Path(source), fields.is_multi_label)
    fields = replace(fields, is_multi_label=is_multi_label)
    classes = RecordClasses(fields)
    for path in paths:
        try:
            yield from _find_in_file(path, fields, classes)
        except OSError as error:
            raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    classes.log_numbers(source)


def _find_in_file(
    path: Path, fields: RecordFields, classes: RecordClasses
) -> Iterator[LabeledFile]:
    is_compressed = find_compression(path)
    with open_records(path) as file:
        for number, (offset, serialized) in enumerate(read_frames(file, path)):
            where = f"{path}: record {number}"
            content = fields.read(serialized, where)
            found = classes.classes_of(content, where)
            at = -1 if is_compressed else serialized.find(content.image)
            location: Location
            if at < 0:  # Compressed, or pixels stored as numbers.
                location = MemoryLocation(_encoded(content))
            elif content.shape:
                location = PixelLocation(str(path), offset + HEADER_BYTES + at, *content.shape)
            else:
                begin = offset + HEADER_BYTES + at
                location = RangeLocation(str(path), begin, len(content.image))
            label: str | tuple[str, ...] = tuple(sorted(found))
            if not fields.is_multi_label:
                label = found[0] if found else NO_CLASS
            if label == NO_CLASS and fields.has_class:
                location = NoLocation(f"has the label {content.labels[0]}, which is no class")
            name = content.filename or f"{path.name}/{number}"
            version = zlib.crc32(serialized)
            yield LabeledFile(name, label, len(serialized), version, location)


def _encoded(content: RecordContent) -> bytes:
    return encode_pixels(content.image, content.shape) if content.shape else content.image


def _find_paths(source: Path, is_multi_label: bool) -> tuple[Sequence[Path], bool]:
    """Return the paths of a source, and whether its images are multi-label."""
    if source.name.endswith(SUFFIX):
        manifest = read_manifest(source.parent, source.name.removesuffix(SUFFIX))
        return manifest.paths, manifest.is_multi_label
    paths = [source] if source.is_file() else expand_records(source)
    if not paths:
        raise DataError(f"there are no files {source}")
    return paths, is_multi_label
