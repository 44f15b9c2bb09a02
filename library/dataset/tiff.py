"""Find what Pillow would read wrong in a TIFF, from its tags.

Pillow drops bands that it doesn't know, takes signed for unsigned samples, and calls a TIFF that it
can't read no image at all.
"""

import io
import warnings

from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

from library.messages import counted

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _EXTRA, _FORMAT = (
    258,
    259,
    262,
    277,
    284,
    338,
    339,
)
_RGB = 2
# Samples of a color, by photometric interpretation.
_COLOR_SAMPLES = {0: 1, 1: 1, _RGB: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
_UNSIGNED, _UNDEFINED = 1, 4
_KINDS = {2: "signed integers", 3: "floating-point numbers"}
_UNSPECIFIED = 0
_SEPARATE = 2
_BIG_TIFF = 43


def is_tiff(content: bytes) -> bool:
    """Return whether a file begins as a TIFF does."""
    return content.startswith(tuple(PREFIXES))


def find_flaw(content: bytes) -> str | None:
    """Return why the samples of a TIFF can't be used; None if they can, or if Pillow will tell."""
    if content.startswith(b"MM\0+"):
        return "is a BigTIFF in big-endian order, which can't be read"
    tags = _read_tags(content)
    bits, formats = max(tags[_BITS]), set(tags[_FORMAT])
    if not formats <= {_UNSIGNED, _UNDEFINED}:
        kind = _KINDS.get(max(formats), "complex numbers")
        return f"has samples that are {kind} of {bits} bits, whose range is unknown"
    if bits > 16:
        return f"has samples of {bits} bits, whose range is unknown"
    count, extra, photometric = tags[_SAMPLES][0], tags[_EXTRA], tags[_PHOTOMETRIC][0]
    missing = count - _COLOR_SAMPLES.get(photometric, count) - len(extra)
    if missing == 1 and photometric == _RGB:
        # Many programs write RGB with alpha without saying so.
        missing = 0
    if unknown := max(missing, 0) + extra.count(_UNSPECIFIED):
        return (
            f"has {count} samples per pixel, {unknown} of them neither color nor alpha (by the "
            "TIFF tag ExtraSamples)"
        )
    is_raw = tags[_COMPRESSION][0] == 1
    if bits == 16 and count > 1 and tags[_PLANES][0] == _SEPARATE and is_raw:
        return "has samples of 16 bits in separate planes, uncompressed, which can't be read"
    return None


def describe(content: bytes) -> str:
    """Return of what kind a TIFF is that Pillow can't read."""
    tags = _read_tags(content)
    return (
        f"is a damaged TIFF, or one of an unsupported kind: compression {tags[_COMPRESSION][0]}, "
        f"photometric interpretation {tags[_PHOTOMETRIC][0]}, "
        f"{counted(tags[_SAMPLES][0], 'sample')} of {counted(max(tags[_BITS]), 'bit')}"
    )


def _read_tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """Return the tags of the first image that this module knows; defaults where it has none."""
    tags = {
        _BITS: (1,),
        _COMPRESSION: (1,),
        _PHOTOMETRIC: (0,),
        _SAMPLES: (1,),
        _PLANES: (1,),
        _EXTRA: (),
        _FORMAT: (_UNSIGNED,),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            directory = ImageFileDirectory_v2(content[: 16 if content[2] == _BIG_TIFF else 8])
            file = io.BytesIO(content)
            file.seek(directory.next)
            directory.load(file)
            found = {tag: directory.get(tag) for tag in tags}
    # Parsing hostile bytes may raise anything.
    except Exception:
        return tags
    for tag, value in found.items():
        values = value if isinstance(value, tuple) else (value,)
        if values and all(isinstance(each, int) for each in values):
            tags[tag] = values
    return tags
