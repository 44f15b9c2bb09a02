import io

import pytest
from PIL import Image

from library.dataset.jpeg import is_complete, read_jpeg_header


def jpeg(mode="RGB", size=(40, 30), **options):
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def test_a_baseline_jpeg_is_read_without_decoding():
    content = jpeg()
    header = read_jpeg_header(content)
    assert (header.width, header.height, header.components) == (40, 30, 3)
    assert header.is_baseline
    assert header.is_ycc
    assert header.orientation == 1
    assert is_complete(content, header)


def test_a_progressive_jpeg_is_complete_but_not_baseline():
    content = jpeg(progressive=True)
    header = read_jpeg_header(content)
    assert not header.is_baseline
    assert is_complete(content, header)


def test_restart_markers_do_not_end_a_scan():
    content = jpeg(size=(200, 200), restart_marker_blocks=2)
    assert b"\xff\xd0" in content
    assert is_complete(content, read_jpeg_header(content))


def test_cmyk_and_rgb_are_told_from_ycc():
    assert read_jpeg_header(jpeg("CMYK")).components == 4
    assert not read_jpeg_header(jpeg(keep_rgb=True)).is_ycc


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_jpeg_header(jpeg(exif=exif)).orientation == orientation


def test_a_profile_is_put_together():
    profile = bytes(range(256)) * 600  # longer than one segment
    assert read_jpeg_header(jpeg(icc_profile=profile)).icc_profile == profile


def test_a_jpeg_cut_anywhere_is_never_whole():
    content = jpeg(size=(24, 16))
    for length in range(2, len(content)):
        header = read_jpeg_header(content[:length])
        assert header is None or not is_complete(content[:length], header), length


def test_whatever_a_header_says_is_read_or_refused():
    content = bytearray(jpeg())
    for at in range(2, read_jpeg_header(content).scan):
        for value in (0, 1, 0x7F, 0xD9, 0xFF):
            before, content[at] = content[at], value
            # A segment may say that it goes on beyond the end of the file.
            header = read_jpeg_header(bytes(content))
            assert header is None or is_complete(bytes(content), header) in (True, False)
            content[at] = before


def test_bytes_after_the_end_are_noticed():
    content = jpeg() + b"\0"
    assert not is_complete(content, read_jpeg_header(content))
