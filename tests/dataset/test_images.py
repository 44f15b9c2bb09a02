import contextlib
import io
import struct

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin

from library.dataset.images import (
    ImageOptions,
    UnusableImageError,
    convert_image,
    decode_image,
    find_conformant,
)
from library.dataset.jpeg import find_end, read_jpeg_header
from library.dataset.pixels import (
    apply_orientation,
    encode_jpeg,
    fitted_size,
    is_srgb,
    lab_to_srgb,
    shrink,
    to_gray,
    to_srgb,
)
from tests.helpers.color_profiles import ADOBE_RGB, SRGB, make_profile, srgb_curve
from tests.helpers.jpeg_variants import (
    CONFORMANT,
    OTHERS,
    PLAIN,
    WITH_STRAY_BYTES,
    WITH_TRAILING_BYTES,
    insert,
    rotated,
    segment,
)


def psnr(one, other):
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def waves(width, height):
    """Smooth waves of several frequencies: what a photograph is made of."""
    y, x = np.mgrid[0:height, 0:width]
    sines = [np.sin(x / a + y / b) for a, b in ((40, 90), (7, 13), (15, -9))]
    gray = (sum(sines) / 6 + 0.5) * 255
    return np.stack([gray, gray[::-1], gray[:, ::-1]], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "max_edge", "expected"),
    [
        ((500, 375), 384, (384, 288)),
        ((375, 500), 384, (288, 384)),
        ((100, 80), 384, (100, 80)),
        ((384, 384), 384, (384, 384)),
        ((10_000, 1), 384, (384, 1)),
        ((5000, 4000), 0, (5000, 4000)),
    ],
)
def test_fitted_size_caps_longer_edge(size, max_edge, expected):
    assert fitted_size(*size, max_edge) == expected


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 450, 500, 640, 768, 900, 1500, 4000])
def test_shrink_matches_lanczos(width):
    pixels = waves(width, width * 3 // 4)
    lanczos = Image.fromarray(pixels).resize((384, 288), Image.Resampling.LANCZOS)
    assert psnr(shrink(pixels, (384, 288)), lanczos) > 36


@pytest.mark.parametrize("size", [(1201, 801), (2049, 1535), (1607, 1209), (3481, 2321)])
def test_reduced_decoding_does_not_shift_the_image(size):
    content = saved(Image.fromarray(waves(*size)), "JPEG", quality=95)
    image = Image.open(io.BytesIO(content))
    fitted = fitted_size(*size, 384)
    lanczos = image.resize(fitted, Image.Resampling.LANCZOS)
    pixels, _ = decode_image(content, ImageOptions(max_edge=384))
    assert psnr(pixels, lanczos) > 38
    # The end is where a shift is largest.
    assert psnr(pixels[-40:, -40:], np.asarray(lanczos)[-40:, -40:]) > 38


def test_shrink_handles_one_pixel_edges():
    assert shrink(waves(3, 900), (1, 384)).shape == (384, 1, 3)
    assert shrink(waves(5000, 4), (384, 1)).shape == (1, 384, 3)
    assert (shrink(np.full((9, 9), 7, np.uint8), (3, 3)) == 7).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_apply_orientation_matches_pillow(orientation):
    image = Image.fromarray(waves(7, 4))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert (apply_orientation(np.asarray(image), orientation) == expected).all()


def test_to_gray_matches_pillow():
    pixels = waves(20, 10)
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    assert abs(to_gray(pixels) - expected).max() <= 1


@pytest.mark.parametrize(("has_full_color", "subsampling"), [(True, 0), (False, 2)])
@pytest.mark.parametrize("quality", [75, 95, 100])
def test_encode_jpeg_matches_pillow(quality, has_full_color, subsampling):
    for image in (Image.fromarray(waves(50, 41)), Image.fromarray(waves(50, 41)).convert("L")):
        theirs = io.BytesIO()
        image.save(theirs, "JPEG", quality=quality, subsampling=subsampling)
        ours = io.BytesIO(encode_jpeg(np.asarray(image), quality, has_full_color))
        assert np.array_equal(*(np.asarray(Image.open(each)) for each in (ours, theirs)))


def test_srgb_profiles_are_recognized():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(srgb, "RGB")
    assert is_srgb(b"", "RGB")
    # A damaged profile is ignored, and so is one for another kind of image.
    assert is_srgb(b"sRGB, or something else", "RGB")
    assert is_srgb(make_profile(2.2), "RGB")
    image = Image.fromarray(waves(8, 8))
    assert (np.asarray(to_srgb(image, b"no profile at all")) == np.asarray(image)).all()


def test_lab_to_srgb_converts_white():
    # L 100 %, a and b in the middle: white.
    assert lab_to_srgb(Image.new("LAB", (1, 1), (255, 128, 128))).getpixel((0, 0)) >= (250,) * 3


def noise_jpeg(mode="RGB", size=(40, 30), **options):
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def test_header_of_baseline_jpeg():
    content = noise_jpeg()
    header = read_jpeg_header(content)
    assert (header.width, header.height, header.components) == (40, 30, 3)
    assert header.is_baseline
    assert header.is_ycc
    assert header.orientation == 1
    assert find_end(content, header) == len(content)


def test_progressive_jpeg_has_an_end_but_not_baseline():
    content = noise_jpeg(progressive=True)
    header = read_jpeg_header(content)
    assert not header.is_baseline
    assert find_end(content, header) == len(content)


def test_restart_markers_do_not_end_scan():
    content = noise_jpeg(size=(200, 200), restart_marker_blocks=2)
    assert b"\xff\xd0" in content
    assert find_end(content, read_jpeg_header(content)) == len(content)


def test_header_distinguishes_cmyk_and_rgb_from_ycc():
    assert read_jpeg_header(noise_jpeg("CMYK")).components == 4
    assert not read_jpeg_header(noise_jpeg(keep_rgb=True)).is_ycc


@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_has_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_jpeg_header(noise_jpeg(exif=exif)).orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 6, 7, 8, 9, 11, 13])
def test_header_has_orientation_of_any_type_that_pillow_takes(kind, order):
    value = {1: "B", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 13: "I"}.get(kind, "H")
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(order + value, 6)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 1)
    content = insert(PLAIN, segment(0xE1, b"Exif\0\0" + head + entry.ljust(16, b"\0")), b"\xff\xdb")
    image = Image.open(io.BytesIO(content))
    is_turned = ImageOps.exif_transpose(image).size != image.size
    assert (read_jpeg_header(content).orientation == 6) is is_turned
    assert is_turned or kind not in (3, 4)


def test_header_has_orientation_of_first_exif_or_of_xmp():
    first, second = (noise_jpeg(exif=rotated(each))[20:] for each in (3, 5))
    exif = [each[: 2 + int.from_bytes(each[2:4], "big")] for each in (first, second)]
    assert read_jpeg_header(insert(PLAIN, exif[0] + exif[1], b"\xff\xdb")).orientation == 3
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    assert read_jpeg_header(insert(PLAIN, segment(0xE1, xmp), b"\xff\xdb")).orientation == 6
    both = exif[0] + segment(0xE1, xmp)
    assert read_jpeg_header(insert(PLAIN, both, b"\xff\xdb")).orientation == 3


def test_header_joins_icc_profile():
    profile = bytes(range(256)) * 600  # longer than one segment
    assert read_jpeg_header(noise_jpeg(icc_profile=profile)).icc_profile == profile


def test_truncated_jpeg_never_has_an_end():
    content = noise_jpeg(size=(24, 16))
    for length in range(2, len(content)):
        header = read_jpeg_header(content[:length])
        assert header is None or not find_end(content[:length], header), length


def test_header_survives_any_byte():
    content = bytearray(noise_jpeg())
    for at in range(2, read_jpeg_header(content).scan):
        for value in (0, 1, 0x7F, 0xD9, 0xFF):
            before, content[at] = content[at], value
            # A segment may say that it goes on beyond the end of the file.
            header = read_jpeg_header(bytes(content))
            assert header is None or find_end(bytes(content), header) <= len(content)
            content[at] = before


@pytest.mark.parametrize("name", WITH_TRAILING_BYTES)
def test_trailing_bytes_are_behind_the_end(name):
    content = WITH_TRAILING_BYTES[name]
    end = find_end(content, read_jpeg_header(content))
    assert content[end - 2 : end] == b"\xff\xd9"
    assert len(content) > end == len(content) - len(content[end:])
    assert np.array_equal(pillow_pixels(content[:end]), pillow_pixels(content))


def test_search_for_the_end_is_linear():
    # A second would be 1,000 times as long as it takes.
    content = PLAIN[:-2] + b"\xff" * 1_000_000
    assert find_end(content, read_jpeg_header(content)) == 0
    assert read_jpeg_header(b"\xff\xd8" + b"\xff" * 1_000_000) is None


def pillow_pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


OPTIONS = ImageOptions(max_edge=64)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def converted(content, options=OPTIONS):
    jpeg, height, width = convert_image(content, options)
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    assert (image.format, image.height, image.width) == ("JPEG", height, width)
    assert "progressive" not in image.info
    return image


def colorful(mode="RGB", size=(60, 40)):
    return Image.fromarray(waves(*size)).convert(mode)


KINDS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    "WEBP": ("RGB", "RGBA"),
}
# Pillow 12 cannot read its own.
UNREADABLE = {("TIFF", "YCbCr")} if PIL.__version__ < "13" else set()
CASES = sorted({(kind, mode) for kind, modes in KINDS.items() for mode in modes} - UNREADABLE)


def as_lab(image):
    lab = ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")


@pytest.mark.parametrize(("kind", "mode"), CASES)
@pytest.mark.parametrize("size", [(60, 40), (150, 100)])
def test_convert_matches_pillow(kind, mode, size):
    image = colorful("RGB", size)
    image = as_lab(image) if mode == "LAB" else image.convert(mode)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = saved(image, kind, **lossless, **({"quality": 95} if kind == "JPEG" else {}))
    expected = Image.open(io.BytesIO(content))
    expected = colorful("RGB", size) if mode == "LAB" else expected.convert("RGB")
    expected.thumbnail((64, 64), Image.Resampling.LANCZOS)
    result = converted(content)
    assert result.mode == "RGB"
    assert result.size == expected.size
    # Dots, black or white, have more detail than a JPEG of 64 pixels keeps.
    assert psnr(result, expected) > (16 if mode == "1" else 29)


@pytest.mark.parametrize("color_space", ["rgb", "gray"])
def test_convert_to_color_space(color_space):
    for kind in KINDS:
        options = ImageOptions(max_edge=32, color_space=color_space)
        mode = "RGB" if color_space == "rgb" else "L"
        assert converted(saved(colorful(), kind), options).mode == mode


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_convert_applies_orientation_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(colorful(), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    result = converted(content)
    assert result.size == expected.size
    assert psnr(result, expected) > 29
    assert result.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damaged_exif_is_ignored(kind):
    whole = converted(saved(colorful(), kind, exif=b"Exif\0\0II*\0"))
    assert whole.size == colorful().size


def test_16_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 8).reshape(8, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        result = np.asarray(converted(saved(Image.fromarray(ramp), kind)).convert("L")).astype(int)
        assert abs(result - ramp / 257).max() < 8


def test_32_bits_are_refused():
    content = saved(Image.new("F", (8, 8)), "TIFF")
    with pytest.raises(UnusableImageError, match="32 bits"):
        convert_image(content, OPTIONS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_background(mode):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert("LA" if mode == "LA" else "RGBA")
    content = saved(image, "PNG" if mode != "PA" else "WEBP", lossless=True)
    result = converted(content, ImageOptions(background=(200, 100, 50)))
    assert abs(np.array(result.getpixel((8, 8))) - (200, 100, 50)).max() < 4


def test_transparent_palette_color_shows_background():
    image = Image.new("P", (16, 16), 3)
    content = saved(image, "GIF", transparency=3)
    assert converted(content, ImageOptions(background=(255, 0, 0))).getpixel((8, 8))[0] > 250


def test_animation_gives_first_frame():
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = converted(content).getpixel((8, 8))
        assert red > 200 > 60 > blue, kind


# Red and blue have changed places.
SWAPPED = make_profile(srgb_curve, SRGB[::-1])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_icc_profile_is_applied(kind):
    content = saved(Image.new("RGB", (32, 32), (220, 30, 30)), kind, icc_profile=SWAPPED)
    red, _, blue = converted(content).getpixel((16, 16))
    assert blue > 180 > 80 > red


@pytest.mark.parametrize("curve", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("primaries", [SRGB, ADOBE_RGB])
def test_profile_is_not_srgb_because_of_its_name(curve, primaries):
    profile = make_profile(curve, primaries, "sRGB IEC61966-2.1")
    assert not is_srgb(profile, "RGB")
    assert not is_srgb(make_profile(srgb_curve, ADOBE_RGB), "RGB")


@pytest.mark.parametrize("name", ["sRGB", "c2"])
def test_profile_is_srgb_whatever_its_name(name):
    assert is_srgb(make_profile(srgb_curve, SRGB, name), "RGB")
    assert is_srgb(make_profile(srgb_curve, (), name), "L")


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, "RGB") for kind in ("JPEG", "PNG", "TIFF", "WEBP")),
        *((kind, "L") for kind in ("JPEG", "PNG", "TIFF")),
        *((kind, mode) for kind in ("PNG", "TIFF") for mode in ("LA", "RGBA", "I;16")),
    ],
)
def test_linear_profile_named_srgb_is_applied(kind, mode):
    color = {"I;16": 129 * 257, "RGB": (129,) * 3, "RGBA": (129, 129, 129, 255)}.get(mode)
    image = Image.new(mode, (32, 32), color or (129 if mode == "L" else (129, 255)))
    primaries = SRGB if mode.startswith("RGB") else ()
    content = saved(image, kind, icc_profile=make_profile(1.0, primaries))
    for color_space in ("rgb", "gray"):
        result = converted(content, ImageOptions(64, color_space=color_space)).convert("L")
        assert abs(result.getpixel((16, 16)) - 188) <= 1


@pytest.mark.parametrize("pieces", [[2, 1], [1, 1], [1], [2]])
def test_profile_in_pieces_is_applied_if_complete(pieces):
    halves = (SWAPPED[:200], SWAPPED[200:])
    segments = [b"ICC_PROFILE\0" + bytes([each, 2]) + halves[each - 1] for each in pieces]
    content = insert(
        saved(Image.new("RGB", (32, 32), (220, 30, 30)), "JPEG"),
        b"".join(segment(0xE2, each) for each in segments),
    )
    red, _, blue = converted(content).getpixel((16, 16))
    assert (blue > red) is (pieces == [2, 1])


def test_conformant_jpeg_keeps_its_bytes():
    for content in (
        saved(colorful(), "JPEG"),
        saved(colorful(), "JPEG", subsampling=0, optimize=True),
        saved(colorful(), "JPEG", icc_profile=make_profile(srgb_curve, SRGB)),
        saved(colorful(), "JPEG", icc_profile=b"a damaged profile"),
    ):
        assert convert_image(content, OPTIONS) == (content, 40, 60)


@pytest.mark.parametrize("name", CONFORMANT)
def test_conformant_jpeg_of_each_kind_keeps_its_bytes(name):
    content = CONFORMANT[name]
    assert convert_image(content, OPTIONS) == (content, 32, 48)


@pytest.mark.parametrize("name", WITH_STRAY_BYTES)
def test_header_of_jpeg_with_stray_bytes(name):
    header = read_jpeg_header(WITH_STRAY_BYTES[name])
    assert header.has_stray_bytes
    assert header.is_baseline
    assert header.orientation == (6 if "turned" in name else 1)
    assert find_conformant(WITH_STRAY_BYTES[name], OPTIONS) is None


@pytest.mark.parametrize("name", WITH_TRAILING_BYTES)
def test_jpeg_loses_only_what_is_behind_its_end(name):
    content = WITH_TRAILING_BYTES[name]
    jpeg, height, width = convert_image(content, OPTIONS)
    assert (height, width) == (32, 48)
    assert content.startswith(jpeg)
    assert len(jpeg) < len(content)


@pytest.mark.parametrize("name", OTHERS)
def test_jpeg_of_another_kind_is_encoded_again(name):
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(OTHERS[name]))).convert("RGB")
    assert OTHERS[name][:100] not in convert_image(OTHERS[name], OPTIONS).content
    assert psnr(converted(OTHERS[name]), expected) > 29


def test_convert_is_idempotent():
    exif = Image.Exif()
    exif[0x0112] = 3
    for content in (
        saved(colorful(), "JPEG", progressive=True),
        saved(colorful("L"), "JPEG"),
        saved(colorful(), "JPEG", exif=exif),
        saved(colorful(), "JPEG", keep_rgb=True),
        saved(colorful(size=(65, 40)), "JPEG"),
        saved(colorful(), "JPEG", progressive=True) + b"trailing",
    ):
        jpeg, height, width = convert_image(content, OPTIONS)
        assert jpeg != content
        assert convert_image(jpeg, OPTIONS) == (jpeg, height, width)


@pytest.mark.parametrize("percent", range(5, 100, 5))
@pytest.mark.parametrize("max_edge", [0, 64])
def test_truncated_jpeg_is_refused(percent, max_edge):
    content = saved(colorful(size=(200, 150)), "JPEG", quality=90)
    with pytest.raises(UnusableImageError, match="JPEG"):
        convert_image(content[: len(content) * percent // 100], ImageOptions(max_edge=max_edge))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("percent", [5, 30, 60, 90])
def test_truncated_file_is_refused(kind, percent):
    content = saved(colorful(size=(200, 150)), kind)
    with pytest.raises(UnusableImageError, match=r"can't be decoded|is not a JPEG"):
        convert_image(content[: len(content) * percent // 100], OPTIONS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, world\n" * 99, "is not a JPEG"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"%PDF-1.4 and more", "is not a JPEG"),
    ],
)
def test_rubbish_is_refused_with_reason(content, reason):
    with pytest.raises(UnusableImageError, match=reason):
        convert_image(content, OPTIONS)


@pytest.mark.parametrize(
    ("chroma", "edge", "subsampling"),
    [("auto", 128, 0), ("auto", 129, 2), ("444", 129, 0), ("444", 500, 0), ("420", 128, 2)],
)
def test_chroma_decides_resolution_of_color(chroma, edge, subsampling):
    content = saved(colorful(size=(edge, 40)), "PNG")
    result = converted(content, ImageOptions(max_edge=0, chroma=chroma))
    assert JpegImagePlugin.get_sampling(result) == subsampling
    # A JPEG that needs no other change keeps its bytes, whatever its color has.
    content = saved(colorful(size=(edge, 40)), "JPEG", subsampling=2 - subsampling)
    assert convert_image(content, ImageOptions(max_edge=0, chroma=chroma)).content == content


def test_full_color_keeps_thin_red_lines():
    lines = np.full((200, 200, 3), 255, np.uint8)
    lines[::4, :, 1:] = 0
    half, full = (
        psnr(converted(saved(Image.fromarray(lines), "PNG"), ImageOptions(chroma=chroma)), lines)
        for chroma in ("auto", "444")
    )
    assert full > half + 15


def test_too_long_edge_is_refused():
    content = saved(Image.new("L", (65_501, 1)), "PNG")
    assert convert_image(content, OPTIONS)[1:] == (1, 64)
    with pytest.raises(UnusableImageError, match="65501x1 pixels"):
        convert_image(content, ImageOptions(max_edge=0))


def bomb(kind):
    """A small file that declares 30,000 by 30,000 pixels."""
    small = bytearray(saved(Image.new("L", (8, 8)), kind))
    if kind == "PNG":
        import zlib

        small[16:24] = (30_000).to_bytes(4, "big") * 2
        small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    elif kind == "JPEG":
        at = small.index(b"\xff\xc0") + 5
        small[at : at + 4] = (30_000).to_bytes(2, "big") * 2
    elif kind == "GIF":
        small[6:10] = (30_000).to_bytes(2, "little") * 2
    elif kind == "BMP":
        small[18:26] = (30_000).to_bytes(4, "little") * 2
    return bytes(small)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_decompression_bomb_is_refused(kind):
    with pytest.raises(UnusableImageError, match=r"30000x30000 .* 128 million \(max_megapixels\)$"):
        convert_image(bomb(kind), OPTIONS)


def test_damaged_bytes_are_converted_or_refused():
    generator = np.random.default_rng(0)
    for kind in KINDS:
        content = np.frombuffer(saved(colorful(size=(32, 24)), kind), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            places = generator.integers(0, len(content), 3)
            damaged[places] = generator.integers(0, 256, 3)
            with contextlib.suppress(UnusableImageError):
                jpeg, height, width = convert_image(damaged.tobytes(), OPTIONS)
                assert Image.open(io.BytesIO(jpeg)).size == (width, height)


def test_decode_returns_original_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        content = saved(colorful(size=(200, 100)), kind, exif=exif)
        pixels, size = decode_image(content, OPTIONS)
        assert size == (100, 200)
        assert pixels.shape[:2] == (64, 32)
