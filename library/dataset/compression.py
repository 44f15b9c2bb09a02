"""TFRecord files that are compressed as a whole, with gzip, as tf.data can read them."""

import gzip
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from library.dataset.records import HEADER_BYTES, is_frame
from library.errors import DataError

_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"


def find_compression(path: str | Path) -> str | None:
    """Return how tf.data calls a TFRecord file's compression, "" or "GZIP"; None if it is none.

    Raises DataError if it is compressed with zlib.
    """
    with Path(path).open("rb") as file:
        begin = file.read(1024)
    if is_frame(begin[:HEADER_BYTES]):
        return ""
    with suppress(OSError, zlib.error):
        if begin.startswith(_GZIP):
            with _Gzip(path) as compressed:
                return "GZIP" if is_frame(compressed.read(HEADER_BYTES)) else None
        if begin.startswith(_ZLIB) and is_frame(
            zlib.decompressobj().decompress(begin, HEADER_BYTES)
        ):
            raise DataError(f"{path} is compressed with zlib: write it with gzip, or uncompressed")
    return None


def open_records(path: str | Path) -> gzip.GzipFile | BinaryIO:
    """Return a TFRecord file opened for `read_frames`, decompressed if it is compressed."""
    return _Gzip(path) if find_compression(path) else Path(path).open("rb")


class _Gzip(gzip.GzipFile):
    """A gzip file that raises OSError however it is damaged."""

    def seekable(self) -> bool:
        return False  # Its size would be known only after reading it all.

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(f"its compressed data is damaged: {error}") from None
