"""Labeled images in TFRecord files that exist already, ours or another program's."""

import zlib
from pathlib import Path

from library.dataset.manifest import SUFFIX, read_manifest
from library.dataset.records import FILENAME, LABEL, TEXT, Fields, read_frames, to_text
from library.dataset.sources.base import LabeledFile
from library.errors import DataError


def find_in_shards(source):
    """Yield a LabeledFile for each record of a manifest's shards, a file, or a pattern's files.

    The class is the field image/class/text or, where there is none, the number in
    image/class/label. It is a tuple of classes where the manifest says that images have several.
    """
    paths, is_multi_label = _paths(Path(source))
    for path in paths:
        with path.open("rb") as file:
            for number, (offset, content) in enumerate(read_frames(file, path)):
                fields = Fields(content, f"{path}: record {number}")
                name = fields.get_bytes(FILENAME) if FILENAME in fields else b""
                yield LabeledFile(
                    to_text(name) or f"{path.name}/{number}",
                    fields.get_texts(TEXT) if is_multi_label else _label(fields),
                    len(content),
                    zlib.crc32(content),
                    # After the length and its checksum.
                    ("record", str(path), offset + 12, len(content)),
                )


def _label(fields):
    text = fields.get_bytes(TEXT).decode(errors="replace") if TEXT in fields else ""
    return text or str(fields.get_int(LABEL))


def _paths(source):
    """Return the paths of a source, and whether images may have several classes."""
    if source.name.endswith(SUFFIX):
        manifest = read_manifest(source.parent, source.name.removesuffix(SUFFIX))
        return manifest.paths, manifest.is_multi_label
    paths = sorted(source.parent.glob(source.name))
    if not paths:
        raise DataError(f"there are no files {source}")
    return paths, False
