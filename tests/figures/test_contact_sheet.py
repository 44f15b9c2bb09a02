import numpy as np
import pytest
from PIL import Image

import run
from library.errors import run_main
from library.figures.contact_sheet import caption, draw_sheet


@pytest.mark.parametrize("channels", [1, 3])
def test_each_pixel_of_a_small_image_can_be_seen(channels):
    images = [np.full((4, 6, channels), 20 * number, np.uint8) for number in range(5)]
    sheet = np.asarray(draw_sheet(images, list("abcde"), columns=3, least_edge=8))
    # Two rows of three cells, each image twice its size.
    assert sheet.shape == (2 * (8 + 14 + 4) + 4, 3 * (12 + 4) + 4, 3)
    for number in range(5):
        top, left = 4 + number // 3 * 26 + 14, 4 + number % 3 * 16
        assert (sheet[top : top + 8, left : left + 12] == 20 * number).all()


def test_a_caption_too_long_for_its_image_is_cut():
    images, long = (
        [np.zeros((20, 20, 3), np.uint8)] * 2,
        "a name far too long for so small an image",
    )
    sheet = np.asarray(draw_sheet(images, [long, ""], least_edge=20))
    caption_rows = sheet[4 : 4 + 14]
    assert (caption_rows[:, 4:24] < 255).any()
    # What is beside its image belongs to the next one.
    assert (caption_rows[:, 24:] == 255).all()


def test_a_caption_of_two_lines_pushes_all_images_down():
    images = [np.full((20, 20, 3), 99, np.uint8)] * 2
    sheet = np.asarray(draw_sheet(images, ["a\nb", "a"], least_edge=20))
    assert sheet.shape == (4 + 2 * 14 + 20 + 4, 2 * 24 + 4, 3)
    assert (sheet[4 + 2 * 14 :][:20, 4:24] == 99).all()
    for left, lines in ((4, 2), (28, 1)):
        rows = (sheet[4 : 4 + 28, left : left + 20] < 255).any((1, 2))
        assert (rows[:14].any(), rows[14:].any()) == (lines == 2, True)


def test_captions_name_the_class_or_the_largest_shares():
    classes = ("cat", "dog", "owl")
    assert caption(np.int64(1), classes) == "dog"
    assert caption(np.array([0.3, 0.0, 0.7]), classes) == "70% owl\n30% cat"
    assert caption(np.array([0.004, 0.996, 0.0]), classes) == "dog"
    assert caption(np.array([0.0, 1.0, 0.0]), classes) == "dog"
    assert caption(np.array([1, 0, 1]), classes) == "cat + owl"
    assert caption(np.array([0, 0, 0]), classes) == "none"


def test_the_command_writes_a_png_and_tells_tensorboard(capsys, options, tmp_path):
    arguments = ["preview", *options, "--augmentations", "flip,mixup"]
    assert run_main(run.main, arguments, "run.py") == 0
    path = capsys.readouterr().out.strip()
    assert path == str(tmp_path / "run" / "preview.png")
    with Image.open(path) as sheet:
        assert sheet.width > 700
    assert list((tmp_path / "run" / "logs" / "preview").glob("events.*"))
