"""PNGs chunk by chunk."""

import struct
import zlib


def join_chunks(*chunks):
    """Return chunks (name, body) as they are in a PNG, with their lengths and checksums."""
    return b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def make_png(*chunks):
    """Return a PNG of chunks (name, body)."""
    return b"\x89PNG\r\n\x1a\n" + join_chunks(*chunks)
