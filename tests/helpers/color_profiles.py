"""Small ICC profiles: any curve and primaries under any name."""

import struct

import numpy as np

# The primaries of sRGB, adapted to the white of profiles, as X, Y and Z.
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
_WHITE = (0.9642, 1.0, 0.8249)


def srgb_curve(x):
    """Return sRGB's linear light of values from 0 to 1."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def make_profile(curve, primaries=(), name="sRGB"):
    """Return a profile: for gray images, unless it has primaries.

    Args:
        curve: A gamma, or a function of values from 0 to 1, which is stored in 1,024 points.
        primaries: X, Y and Z of red, green and blue.
        name: What the profile calls itself.
    """
    tags = {b"desc": _description(name), b"wtpt": _xyz(_WHITE)}
    if primaries:
        tags |= {b"rTRC": _curve(curve), b"gTRC": _curve(curve), b"bTRC": _curve(curve)}
        tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, primaries), strict=True))
    else:
        tags[b"kTRC"] = _curve(curve)
    body, table = b"", b""
    for tag, content in tags.items():
        at = 128 + 4 + 12 * len(tags) + len(body)
        table += struct.pack(">4sII", tag, at, len(content))
        body += content + bytes(-len(content) % 4)
    content = struct.pack(">I", len(tags)) + table + body
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(">I4sI4s4s4s", 128 + len(content), b"", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(_WHITE)
    return head.ljust(128, b"\0") + content


def _fixed(values):
    return struct.pack(f">{len(values)}i", *(round(65536 * each) for each in values))


def _xyz(values):
    return b"XYZ " + bytes(4) + _fixed(values)


def _curve(curve):
    if callable(curve):
        points = np.round(65535 * curve(np.linspace(0, 1, 1024))).astype(">u2").tobytes()
        return b"curv" + struct.pack(">II", 0, 1024) + points
    return b"curv" + struct.pack(">IIH", 0, 1, round(256 * curve))


def _description(name):
    text = name.encode() + b"\0"
    return b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78)
