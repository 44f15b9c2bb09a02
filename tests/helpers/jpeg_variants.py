"""JPEGs as cameras, phones and editors write them: what stands between and behind the segments."""

import base64
import io
import struct

import numpy as np
from PIL import Image

SIZE = (48, 32)


def waves(width, height):
    """Return smooth color with sharp edges, so that a second encoding shows."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([128 + 120 * np.sin(x / 3), 255 * y / height, (x // 5 + y // 4) % 2 * 220], 2)
    return pixels.astype(np.uint8)


def encode_jpeg(image=None, **options):
    """Return a JPEG of 48x32 pixels, or of another image."""
    file = io.BytesIO()
    image = image or Image.fromarray(waves(*SIZE))
    image.save(file, **{"format": "JPEG", "quality": 90, **options})
    return file.getvalue()


def segment(marker, body):
    """Return a segment with its marker and length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def insert(content, more, before=b"\xff\xda"):
    """Return content with more before the first of some bytes: as default, before the scan."""
    at = content.index(before)
    return content[:at] + more + content[at:]


def rotated(orientation):
    """Return Exif with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def adobe(transform):
    """Return Adobe's segment, which says how colors are stored."""
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


PLAIN = encode_jpeg()
_THUMBNAIL = encode_jpeg(Image.fromarray(waves(16, 8)))

# These are PLAIN with something behind the end of the image, which no decoder reads.
WITH_TRAILING_BYTES = {
    "multi-picture": encode_jpeg(
        format="MPO", save_all=True, append_images=[Image.new("RGB", SIZE, "red")]
    ),
    "thumbnail behind": PLAIN + _THUMBNAIL,
    "motion photo": PLAIN + struct.pack(">I", 24) + b"ftypmp42" + bytes(range(256)) * 40,
    "zeros behind": PLAIN + bytes(2000),
    "one byte behind": PLAIN + b"\0",
    "end marker twice": PLAIN + b"\xff\xd9",
    "text behind": PLAIN + b"\r\n<!-- served by -->\xff\xd9",
}
# Nothing of these needs to change.
CONFORMANT = {
    "plain": PLAIN,
    "full color": encode_jpeg(subsampling=0, optimize=True),
    "restarts": encode_jpeg(restart_marker_blocks=1),
    "Adobe, YCC": insert(PLAIN, adobe(1), b"\xff\xdb"),
    "thumbnail in Exif": insert(
        PLAIN, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + _THUMBNAIL), b"\xff\xdb"
    ),
    "comment with markers": insert(PLAIN, segment(0xFE, b"\xff\xd9\xff\xda\xff\xc2")),
    "fill bytes": insert(PLAIN, b"\xff\xff\xff"),
    "restart between segments": insert(PLAIN, b"\xff\xd0"),
    "stray byte before the end": PLAIN[:-2] + b"\0" + PLAIN[-2:],
    "empty segment": insert(PLAIN, b"\xff\xe5\0\1"),
}
# Those of them with bytes between the segments, which decoders skip without a warning.
FILLED = ("fill bytes", "restart between segments")
# These have to be encoded again.
OTHERS = {
    "progressive": encode_jpeg(progressive=True),
    "progressive, more behind": encode_jpeg(progressive=True) + b"more",
    "RGB": encode_jpeg(keep_rgb=True),
    "Adobe, RGB": insert(encode_jpeg(keep_rgb=True), adobe(0), b"\xff\xdb"),
    "gray": encode_jpeg(Image.fromarray(waves(*SIZE)).convert("L")),
    "extended": PLAIN.replace(b"\xff\xc0", b"\xff\xc1"),
    **{f"orientation {each}": encode_jpeg(exif=rotated(each)) for each in range(2, 9)},
}
# Bytes between the segments, which some cameras write; decoders skip them.
WITH_STRAY_BYTES = {
    "stray bytes": insert(PLAIN, b"xyz"),
    "stray zeros": insert(PLAIN, bytes(5), b"\xff\xc4"),
    "stray FF 00": insert(PLAIN, b"\xff\0"),
    "stray bytes, turned": insert(encode_jpeg(exif=rotated(6)), b"xyz", b"\xff\xe1"),
}
# From `cjpeg -sample`, which Pillow has no option for: sampling factors of Y, Cb and Cr.
UNUSUAL_SAMPLING = {
    "1x1,2x2,1x1": base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAQABgDAREAAiIBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAA"
        "AgT/xAAjEAAABAMJAAAAAAAAAAAAAAAAAhESBQYTAwQhJDFCUWGB/8QAGQEAAgMBAAAAAAAAAAAAAAAAAAUBAwQG"
        "/8QAKREAAQEGAgsBAAAAAAAAAAAAEQABAgMFUWESIQQTFBUjJTFicoGRJP/aAAwDAQACEQMRAD8AMSlzJWZaWmLe"
        "O1Ev8re1xxHIdL3otsHjs28gZjxvcUXNP8re1xxHIdL3otsHjs28gZjxvcUV00mX5nWlVQ+W3XQhqD13Ki+BjHj7"
        "17cPsn5RCTx4+9e3D7J+UQmEumQ0d1hC/9k="
    ),
    "3x1,1x1,1x1": base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAQABgDATEAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAA"
        "BAUG/8QAIRAAAQMCBwEAAAAAAAAAAAAAEQAFEgMUAQIEEzJBUYH/xAAVAQEBAAAAAAAAAAAAAAAAAAAFA//EACIR"
        "AAEDAQkBAAAAAAAAAAAAAAMAAhEBBBIhJGFikaHB4f/aAAwDAQACEQMRAD8AFp2y3oTEjgAAozg2Tq7wHYHic1t1"
        "xl4xj9V2uujcKdnOM+R2lj2nNirpK3OnbLehMSOAACjODZOrvAdgeJzW3XGXjGP1DtddG4U7OcZ+doE9pzYq6Sv/"
        "2Q=="
    ),
}
