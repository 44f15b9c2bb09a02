"""Find what Pillow would read wrong in a TIFF, from its tags.

Pillow drops bands that it doesn't know, takes signed for unsigned samples, and calls a TIFF that it
can't read no image at all.
"""

import io
import warnings

from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

from library.messages import counted

# The tags that matter: their numbers, and what holds where they are missing.
_TAGS = {
    "bits": (258, (1,)),
    "compression": (259, (1,)),
    "photometric": (262, (0,)),
    "samples": (277, (1,)),
    "planes": (284, (1,)),
    "extra": (338, ()),
    "formats": (339, (1,)),
}
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
    bits, formats = max(tags["bits"]), set(tags["formats"])
    if not formats <= {_UNSIGNED, _UNDEFINED}:
        kind = _KINDS.get(max(formats), "complex numbers")
        return f"has samples that are {kind} of {bits} bits, whose range is unknown"
    if bits > 16:
        return f"has samples of {bits} bits, whose range is unknown"
    count, extra, photometric = tags["samples"][0], tags["extra"], tags["photometric"][0]
    missing = count - _COLOR_SAMPLES.get(photometric, count) - len(extra)
    if missing == 1 and photometric == _RGB:
        # Many programs write RGB with alpha without saying so.
        missing = 0
    if unknown := max(missing, 0) + extra.count(_UNSPECIFIED):
        return f"has {count} samples per pixel, {unknown} of them neither color nor alpha"
    is_raw = tags["compression"][0] == 1
    if bits == 16 and count > 1 and tags["planes"][0] == _SEPARATE and is_raw:
        return "has samples of 16 bits in separate planes, uncompressed, which can't be read"
    return None


def describe(content: bytes) -> str:
    """Return of what kind a TIFF is that Pillow can't read."""
    tags = _read_tags(content)
    kind = f"compression {tags['compression'][0]}, photometric {tags['photometric'][0]}"
    samples = f"{counted(tags['samples'][0], 'sample')} of {counted(max(tags['bits']), 'bit')}"
    return f"is a damaged TIFF, or one of an unsupported kind: {kind}, {samples}"


def _read_tags(content: bytes) -> dict[str, tuple[int, ...]]:
    """Return the tags of the first image."""
    tags: dict[str, tuple[int, ...]] = {name: default for name, (_, default) in _TAGS.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            directory = ImageFileDirectory_v2(content[: 16 if content[2] == _BIG_TIFF else 8])
            file = io.BytesIO(content)
            file.seek(directory.next)
            directory.load(file)
            found = {name: directory.get(tag) for name, (tag, _) in _TAGS.items()}
    # Parsing hostile bytes may raise anything.
    except Exception:
        return tags
    for name, value in found.items():
        values = value if isinstance(value, tuple) else (value,)
        if values and all(isinstance(each, int) for each in values):
            tags[name] = values
    return tags
