"""Every kind of image file gives an exported model the pixels of predict, or is refused clearly."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms

from library.dataset.images import ImageOptions, UnusableImageError
from library.export.bytes_to_pixels import prepare_bytes
from library.inputs.decoding import ImageFormat
from library.prediction.preprocess import ImagePreprocessor
from tests.helpers.jpeg_variants import (
    CONFORMANT,
    FILLED,
    OTHERS,
    PLAIN,
    WITH_STRAY_BYTES,
    WITH_TRAILING_BYTES,
    insert,
    rotated,
    segment,
    waves,
)
from tests.helpers.png_chunks import join_chunks, make_png

pytestmark = pytest.mark.slow

COLOR = Image.fromarray(waves(48, 32))
GRAY = COLOR.convert("L")
ALPHA = COLOR.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize(COLOR.size))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'
# What the graph says of a file that it does not take.
REFUSALS = "exported model|too many pixels"


def save(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(bits, kind, channels, *more, interlace=0, size=(8, 6)):
    """Return a PNG of random samples, with more chunks before its data."""
    width, height = size
    row = -(-width * bits * channels // 8)
    random = np.random.default_rng(bits + kind)
    rows = b"".join(b"\0" + random.bytes(row) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)
    return make_png((b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def with_chunk(content, name, body):
    """Return a PNG with one more chunk behind its header."""
    return content[:33] + join_chunks((name, body)) + content[33:]


def odd_orientation(code, count, value, more=b""):
    """Return a JPEG with an orientation of an unusual type or count in its Exif."""
    entry = struct.pack("<HHI", 0x112, code, count) + value + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + more
    return insert(PLAIN, segment(0xE1, exif), b"\xff\xdb")


def with_profile(profile):
    return {"icc_profile": profile}


def raw_exif(orientation):
    """Return Exif as ImageMagick writes it into a PNG's text."""
    body = b"Exif\0\0" + rotated(orientation).tobytes().removeprefix(b"Exif\0\0")
    return b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"


KINDS = {
    **CONFORMANT,
    **OTHERS,
    **WITH_STRAY_BYTES,
    **WITH_TRAILING_BYTES,
    "jpeg srgb": save(COLOR, "JPEG", quality=95, **with_profile(SRGB)),
    "jpeg other profile": save(
        COLOR, "JPEG", **with_profile(SRGB.replace(b"XYZ \0\0\0\0\0\0", b"XYZ \0\0\0\0\0\1"))
    ),
    "jpeg damaged profile": save(COLOR, "JPEG", **with_profile(b"no profile")),
    "jpeg gray profile": save(GRAY, "JPEG", **with_profile(SRGB)),
    "jpeg cmyk": save(COLOR.convert("CMYK"), "JPEG"),
    "jpeg xmp orientation": insert(PLAIN, segment(0xE1, XMP), b"\xff\xdb"),
    "jpeg cmyk, shrunk": save(Image.fromarray(waves(151, 101)).convert("CMYK"), "JPEG"),
    "jpeg orientation, two": odd_orientation(3, 2, struct.pack("<HH", 6, 3)),
    "jpeg orientation, three": odd_orientation(
        3, 3, struct.pack("<I", 26), struct.pack("<HHH", 6, 3, 3)
    ),
    "jpeg orientation, none": odd_orientation(3, 0, struct.pack("<HH", 6, 3)),
    "jpeg orientation, large": odd_orientation(4, 1, struct.pack("<I", 9)),
    "jpeg orientation, fraction": odd_orientation(
        5, 1, struct.pack("<I", 26), struct.pack("<II", 6, 1)
    ),
    "jpeg orientation, float": odd_orientation(11, 1, struct.pack("<f", 6)),
    "jpeg orientation, byte": odd_orientation(1, 1, struct.pack("<I", 6)),
    "jpeg 12 bits": PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "jpeg arithmetic": PLAIN.replace(b"\xff\xc0", b"\xff\xc9"),
    "jpeg lossless": PLAIN.replace(b"\xff\xc0", b"\xff\xc3"),
    "jpeg bomb": PLAIN.replace(b"\0\x20\0\x30\x03", b"\xff\0\xff\0\x03"),
    "jpeg 4:1:1": save(COLOR, "JPEG", subsampling="4:1:1"),
    "jpeg 4:2:2": save(COLOR, "JPEG", subsampling="4:2:2"),
    **{
        f"png {bits} {kind}": png(bits, kind, channels)
        for bits, kind, channels in (
            (1, 0, 1),
            (2, 0, 1),
            (4, 0, 1),
            (8, 0, 1),
            (16, 0, 1),
            (8, 2, 3),
            (16, 2, 3),
            (8, 4, 2),
            (16, 4, 2),
            (8, 6, 4),
            (16, 6, 4),
        )
    },
    **{
        f"png {bits} palette": png(
            bits,
            3,
            1,
            (b"PLTE", bytes(range(3 * 2**bits)) if bits < 8 else bytes(range(256)) * 3),
            *more,
        )
        for bits in (1, 2, 4, 8)
        for more in ((),)
    },
    **{
        f"png {bits} palette transparent": png(
            bits,
            3,
            1,
            (b"PLTE", bytes(range(3 * 2**bits)) if bits < 8 else bytes(range(256)) * 3),
            (b"tRNS", b"\0\x80"),
        )
        for bits in (1, 2, 4, 8)
    },
    **{f"png {bits} gray key": png(bits, 0, 1, (b"tRNS", b"\0\1")) for bits in (1, 2, 4, 8)},
    "png 16 gray key": png(16, 0, 1, (b"tRNS", b"\x10\x20"), size=(2, 2)),
    "png rgb key": save(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    "png 16 rgb key": png(16, 2, 3, (b"tRNS", bytes(6))),
    "png gamma": with_chunk(save(COLOR, "PNG"), b"gAMA", struct.pack(">I", 100_000)),
    "png gamma and alpha": with_chunk(save(ALPHA, "PNG"), b"gAMA", struct.pack(">I", 100_000)),
    "png chromaticities": with_chunk(save(COLOR, "PNG"), b"cHRM", struct.pack(">8I", *[30000] * 8)),
    "png srgb chunk": with_chunk(save(COLOR, "PNG"), b"sRGB", b"\0"),
    "png background": with_chunk(save(ALPHA, "PNG"), b"bKGD", bytes(6)),
    "png significant bits": with_chunk(save(COLOR, "PNG"), b"sBIT", b"\5\6\5"),
    "png code points": with_chunk(save(COLOR, "PNG"), b"cICP", b"\x0c\x0d\0\1"),
    "png srgb profile": save(COLOR, "PNG", **with_profile(SRGB)),
    "png damaged profile": save(COLOR, "PNG", **with_profile(b"no profile")),
    "png turned": save(COLOR, "PNG", exif=rotated(6)),
    "png animated": save(COLOR, "PNG", save_all=True, append_images=[ALPHA.convert("RGB")]),
    "png xmp orientation": with_chunk(
        save(COLOR, "PNG"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP[29:]
    ),
    "png raw exif": with_chunk(
        save(COLOR, "PNG"), b"tEXt", b"Raw profile type exif\0" + raw_exif(6)
    ),
    "png text after": save(COLOR, "PNG") + b"more",
    "png bomb": make_png(
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ),
    "png huge": make_png(
        (b"IHDR", struct.pack(">IIBBBBB", 2**32 - 1, 2**32 - 1, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ),
    "gif": save(COLOR, "GIF"),
    "bmp": save(COLOR, "BMP"),
    "webp": save(COLOR, "WEBP"),
    "webp lossless": save(COLOR, "WEBP", lossless=True),
    "webp turned": save(COLOR, "WEBP", exif=rotated(6)),
    "webp alpha": save(ALPHA, "WEBP"),
    "webp animated": save(COLOR, "WEBP", save_all=True, append_images=[ALPHA]),
    "webp profile": save(COLOR, "WEBP", **with_profile(SRGB)),
    "tiff": save(COLOR, "TIFF"),
    "ico": save(COLOR, "ICO"),
    "ppm": save(COLOR, "PPM"),
    "tga": save(COLOR, "TGA"),
    "jpeg 2000": save(COLOR, "JPEG2000"),
    "avif": b"\0\0\0\x20ftypavif" + bytes(60),
    "heif": b"\0\0\0\x20ftypheic" + bytes(60),
    "psd": b"8BPS\0\1" + bytes(60),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "pdf": b"%PDF-1.7\n",
    "jpeg xl": b"\xff\x0a" + bytes(60),
    "text": b"hello, world",
    "empty": b"",
}


# What an exported model may refuse though predict takes it.
REFUSED = {
    *(*WITH_STRAY_BYTES, *FILLED),
    *(each for each in KINDS if each.startswith(("webp", "tiff")) or each.endswith("gray key")),
    *("gif", "bmp", "jpeg cmyk", "jpeg cmyk, shrunk"),
    *("jpeg other profile", "jpeg damaged profile", "png damaged profile"),
    *(f"jpeg orientation, {each}" for each in ("two", "three", "none", "fraction", "float")),
    *("jpeg orientation, byte", "jpeg xmp orientation", "png xmp orientation", "png raw exif"),
}


@pytest.fixture(scope="module", params=["rgb", "gray"])
def both(request):
    """The graph and the converter, for color and for gray networks."""
    options = ImageOptions(40, 95, request.param, (10, 200, 60), 1_000_000)
    image_format = ImageFormat(20, 3 if request.param == "rgb" else 1)
    graph = tf.function(
        lambda encoded: prepare_bytes(encoded, image_format, options),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )
    return graph, ImagePreprocessor(image_format, options)


@pytest.mark.parametrize("name", KINDS)
def test_prepare_bytes_matches_predict_or_refuses(both, name):
    graph, preprocessor = both
    try:
        expected = preprocessor.preprocess(KINDS[name]).astype(int)
    except UnusableImageError:
        expected = None
    try:
        found = graph(KINDS[name]).numpy()
    except tf.errors.InvalidArgumentError as error:
        found = str(error)
    if isinstance(found, str):
        # What predict refuses, too, may have TensorFlow's own reason.
        assert expected is None or (re.search(REFUSALS, found) and name in REFUSED), found
    else:
        assert expected is not None, "the graph takes what predict refuses"
        assert np.abs(found - expected).max() <= 1
