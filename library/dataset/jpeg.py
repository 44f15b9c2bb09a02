"""What a JPEG says of itself, read from its markers without decoding a pixel."""

import re
import struct
from dataclasses import dataclass

import numpy as np

_START, _END, _SCAN, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xEE
_BASELINE = 0xC0
# C4 (tables), C8 (reserved) and CC (conditioning) are no frame headers.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# In the compressed data of a scan, FF is followed by 00, or by a restart marker.
_MARKER_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_ORIENTATION = 0x0112


@dataclass(slots=True)
class JpegHeader:
    """What the markers say. `orientation` is Exif's, 1 to 8; `icc_profile` is empty if none."""

    width: int = 0
    height: int = 0
    components: int = 0
    is_baseline: bool = False
    # Whether the compressed colors are Y, Cb, Cr (or Y alone), not R, G, B or C, M, Y, K.
    is_ycc: bool = True
    orientation: int = 1
    icc_profile: bytes = b""
    # Where the first scan begins; 0 if the file ends before it.
    scan: int = 0


def read_jpeg_header(content):
    """Return the JpegHeader of a file's bytes, which begin as a JPEG does.

    None if the file is cut short, or makes no sense, before its first scan.
    """
    header = JpegHeader()
    profile = {}
    try:
        for marker, body, after in _segments(content):
            if marker in _FRAMES:
                _read_frame(content, body, marker, header)
            elif marker == _APP1 and content.startswith(_EXIF, body):
                header.orientation = read_orientation(content[body + len(_EXIF) : after])
            elif marker == _APP2 and content.startswith(_ICC, body):
                # A profile may be in pieces: its number, how many there are, and the piece.
                profile[content[body + 12]] = content[body + 14 : after]
            elif marker == _APP14 and content.startswith(b"Adobe", body):
                header.is_ycc = content[body + 11] == 1
            elif marker == _SCAN:
                header.scan = after
                break
    except (IndexError, struct.error):
        return None
    header.icc_profile = b"".join(profile[each] for each in sorted(profile))
    has_scan = 0 < header.scan <= len(content)
    return header if has_scan and header.width and header.height else None


def is_whole(content, header):
    """Return whether scans and segments follow one another properly, to a marker that ends file.

    The compressed data itself is not decoded: damage that looks like data is not noticed.
    """
    position = header.scan
    # By far the most common case, at a fraction of the regular expression's time: one scan, in
    # which all but the last FF are followed by 00.
    if content.endswith(b"\xff\xd9"):
        data = np.frombuffer(content, np.uint8, offset=position)
        if np.count_nonzero((data[:-1] == 0xFF) & (data[1:] != 0)) == 1:
            return True
    try:
        while found := _MARKER_AFTER_SCAN.search(content, position):
            for marker, _, after in _segments(content, found.end() - 2):
                if marker == _END:
                    return after == len(content)
                if marker == _SCAN:
                    position = after
                    break
    except (IndexError, struct.error):
        pass
    return False


def _segments(content, position=2):
    """Yield (marker, where its body begins, where it ends) for each segment up to a scan's header.

    Stops without a word where no segment begins.
    """
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _END:
            yield marker, position + 2, position + 2
            return
        (length,) = struct.unpack_from(">H", content, position + 2)
        yield marker, position + 4, position + 2 + length
        position += 2 + length


def _read_frame(content, body, marker, header):
    precision, header.height, header.width, header.components = struct.unpack_from(
        ">BHHB", content, body
    )
    header.is_baseline = marker == _BASELINE and precision == 8
    names = bytes(content[body + 6 + 3 * each] for each in range(header.components))
    if names == b"RGB":
        header.is_ycc = False


def read_orientation(tiff):
    """Return the orientation in Exif's bytes, which are a small TIFF; 1 if there is none."""
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * number)
            if tag == _ORIENTATION and kind == 3:
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1
