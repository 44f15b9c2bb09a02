"""TIFFs as scientific programs write them, which Pillow can't write."""

import struct

import numpy as np

RGB, GRAY, INVERTED_GRAY, CMYK = 2, 1, 0, 5
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def encode_tiff(
    pixels, photometric=RGB, extra=(), sample_format=UNSIGNED, *, bits=0, order="<", planes=1
):
    """Return an uncompressed TIFF.

    Args:
        pixels: Of shape (height, width, samples).
        photometric: The photometric interpretation.
        extra: What the samples behind the colors mean: 0, unspecified; 1 or 2, alpha.
        sample_format: The type of the samples.
        bits: Bits per sample; 0: those of the pixels.
        order: Of the bytes: < or >.
        planes: 2: each sample in a plane of its own.
    """
    height, width, count = pixels.shape
    bits = bits or 8 * pixels.itemsize
    if planes == 2:
        pixels = np.moveaxis(pixels, 2, 0)
    if bits == 12:
        content = "".join(f"{each:012b}" for each in pixels.ravel())
        data = int(content, 2).to_bytes(len(content) // 8, "big")
    else:
        data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(order)).tobytes()
    strip_bytes = len(data) // (count if planes == 2 else 1)
    strips = list(range(8, 8 + len(data), strip_bytes))
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * count),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, strips),
        (277, 3, [count]),
        (278, 4, [height]),
        (279, 4, [strip_bytes] * len(strips)),
        (284, 3, [planes]),
        *([(338, 3, list(extra))] if extra else []),
        (339, 3, [sample_format] * count),
    ]
    at = 8 + len(data) + len(data) % 2
    values_at = at + 2 + 12 * len(tags) + 4
    directory, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, kind, numbers in tags:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        if len(packed) <= 4:
            directory += packed.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", values_at + len(values))
            values += packed + bytes(len(packed) % 2)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", at)
    return head + data + bytes(len(data) % 2) + directory + bytes(4) + values
