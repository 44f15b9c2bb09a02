"""Labeled images in existing TFRecord files, this project's or another program's."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from library.dataset.locations import RecordLocation
from library.dataset.manifest import SUFFIX, read_manifest
from library.dataset.records import FILENAME, LABEL, TEXT, Fields, read_frames, to_text
from library.dataset.sources.base import LabeledFile
from library.errors import DataError


def find_in_shards(source: str | Path) -> Iterator[LabeledFile]:
    """Yield a labeled file for each record of TFRecord files.

    The class is the field image/class/text or, without it, the number in image/class/label. It is a
    tuple of classes if the manifest says that the data is multi-label.

    Args:
        source: A manifest, a TFRecord file, or a pattern of such files.
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
                    # The content follows its length and the length's checksum.
                    RecordLocation(str(path), offset + 12, len(content)),
                )


def _label(fields: Fields) -> str:
    text = fields.get_bytes(TEXT).decode(errors="replace") if TEXT in fields else ""
    return text or str(fields.get_int(LABEL))


def _paths(source: Path) -> tuple[Sequence[Path], bool]:
    """Return the paths of a source, and whether its images are multi-label."""
    if source.name.endswith(SUFFIX):
        manifest = read_manifest(source.parent, source.name.removesuffix(SUFFIX))
        return manifest.paths, manifest.is_multi_label
    paths = sorted(source.parent.glob(source.name))
    if not paths:
        raise DataError(f"there are no files {source}")
    return paths, False
