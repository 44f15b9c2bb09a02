"""TFRecord files that are compressed as a whole, with gzip or zlib, as tf.data can read them."""

import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from library.dataset.records import HEADER_BYTES, is_frame

# How compressed files begin, and what tf.data calls the compression.
_COMPRESSIONS = {b"\x1f\x8b\x08": "GZIP", b"\x78": "ZLIB"}
_CHUNK_BYTES = 1 << 20


def find_compression(path: str | Path) -> str | None:
    """Return how a TFRecord file is compressed: "", "GZIP" or "ZLIB"; None for any other file."""
    with Path(path).open("rb") as file:
        begin = file.read(HEADER_BYTES)
    # First, because the length of a record may look like the beginning of a compressed file.
    if is_frame(begin):
        return ""
    for magic, name in _COMPRESSIONS.items():
        if begin.startswith(magic):
            try:
                with _Decompressed(path) as file:
                    return name if is_frame(file.read(HEADER_BYTES)) else None
            except OSError:
                return None
    return None


def open_records(path: str | Path) -> BinaryIO:
    """Return a TFRecord file opened for `read_frames`, decompressed if it is compressed."""
    if find_compression(path):
        return io.BufferedReader(_Decompressed(path), _CHUNK_BYTES)
    return Path(path).open("rb")


class _Decompressed(io.RawIOBase):
    """The content of a gzip or zlib file, piece by piece. Raises OSError where it is damaged."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115
        self._decompressor = _new_decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = b""
        while not piece:
            decompressor = self._decompressor
            content = decompressor.unconsumed_tail or decompressor.unused_data
            content = content or self._file.read(_CHUNK_BYTES)
            if not content:
                if not decompressor.eof:
                    raise OSError("its compressed data is cut short")
                break
            if decompressor.eof:  # Files may be concatenated.
                self._decompressor = decompressor = _new_decompressor()
            try:
                piece = decompressor.decompress(content, len(buffer))
            except zlib.error as error:
                raise OSError(f"its compressed data is damaged: {error}") from None
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def _new_decompressor() -> Any:
    return zlib.decompressobj(wbits=47)  # gzip or zlib, whichever the data is
