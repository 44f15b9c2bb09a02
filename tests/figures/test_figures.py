import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest

from library.figures.contact_sheet import caption, draw_sheet
from library.figures.kernels import first_kernels, kernel_grid
from library.figures.training_curves import write_curves


@pytest.mark.parametrize("channels", [1, 3])
def test_draw_sheet_enlarges_small_images(channels):
    images = [np.full((4, 6, channels), 20 * number, np.uint8) for number in range(5)]
    sheet = np.asarray(draw_sheet(images, list("abcde"), columns=3, least_edge=8))
    # Two rows of three cells, each image twice its size.
    assert sheet.shape == (2 * (8 + 14 + 4) + 4, 3 * (12 + 4) + 4, 3)
    for number in range(5):
        top, left = 4 + number // 3 * 26 + 14, 4 + number % 3 * 16
        assert (sheet[top : top + 8, left : left + 12] == 20 * number).all()


def test_draw_sheet_shortens_long_captions():
    images, long = (
        [np.zeros((20, 20, 3), np.uint8)] * 2,
        "a name far too long for so small an image",
    )
    sheet = np.asarray(draw_sheet(images, [long, ""], least_edge=20))
    caption_rows = sheet[4 : 4 + 14]
    assert (caption_rows[:, 4:24] < 255).any()
    # What is beside its image belongs to the next one.
    assert (caption_rows[:, 24:] == 255).all()


def test_draw_sheet_makes_room_for_two_lines():
    images = [np.full((20, 20, 3), 99, np.uint8)] * 2
    sheet = np.asarray(draw_sheet(images, ["a\nb", "a"], least_edge=20))
    assert sheet.shape == (4 + 2 * 14 + 20 + 4, 2 * 24 + 4, 3)
    assert (sheet[4 + 2 * 14 :][:20, 4:24] == 99).all()
    for left, lines in ((4, 2), (28, 1)):
        rows = (sheet[4 : 4 + 28, left : left + 20] < 255).any((1, 2))
        assert (rows[:14].any(), rows[14:].any()) == (lines == 2, True)


def test_caption_of_each_kind_of_label():
    classes = ("cat", "dog", "owl")
    assert caption(np.int64(1), classes) == "dog"
    assert caption(np.array([0.3, 0.0, 0.7]), classes) == "70% owl\n30% cat"
    assert caption(np.array([0.004, 0.996, 0.0]), classes) == "dog"
    assert caption(np.array([0.0, 1.0, 0.0]), classes) == "dog"
    assert caption(np.array([1, 0, 1]), classes) == "cat + owl"
    assert caption(np.array([0, 0, 0]), classes) == "none"


def test_kernel_grid_scales_each_kernel():
    kernels = np.zeros((2, 3, 1, 5), np.float32)
    kernels[0, 0, 0] = [1, 2, 3, 4, 5]
    grid = kernel_grid(kernels)
    assert grid.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
    corners = [grid[y, x, 0] for y in (0, 3) for x in (0, 4, 8)]
    assert corners == [1, 1, 1, 1, 1, 0]
    assert grid.sum() == 5
    assert kernel_grid(np.ones((2, 2, 16, 4), np.float32)).shape == (5, 5, 1)


def test_first_kernels_prefers_those_on_images():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, name="separate")(
        keras.layers.Conv2D(4, 3, name="look")(pixels)
    )
    base = keras.Model(pixels, keras.layers.Conv2D(2, 1)(x), name="base")
    base.trainable = False
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(base(pixels))))
    assert np.array_equal(first_kernels(network), base.get_layer("look").get_weights()[0])
    # Behind another layer, and then the first there is.
    inner = keras.Input((8, 8, 16))
    deep = keras.Model(inner, keras.layers.Conv2D(2, 3)(keras.layers.Conv2D(4, 1)(inner)))
    assert first_kernels(deep).shape == (1, 1, 16, 4)


def test_first_kernels_of_a_network_without_any():
    pixels = keras.Input((4,))
    assert first_kernels(keras.Model(pixels, keras.layers.Dense(2)(pixels))) is None


NAMES = ("loss", "accuracy", "validation_loss", "validation_accuracy")


def rows(count):
    return [{"epoch": n + 1, **dict.fromkeys(NAMES, 1 / (n + 1))} for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_write_curves_has_text(tmp_path, count):
    write_curves(tmp_path / "curves.svg", rows(count), best_epoch=1)
    texts = "".join(ET.parse(tmp_path / "curves.svg").getroot().itertext())
    for word in ("loss", "accuracy", "training", "validation", "epoch", "best: epoch 1"):
        assert word in texts


def test_write_curves_draws_metrics_of_validation_only(tmp_path):
    history = [{**each, "validation_recall:$a$ b": 0.5} for each in rows(2)]
    write_curves(tmp_path / "curves.svg", [*rows(1), *history])
    texts = [*ET.parse(tmp_path / "curves.svg").getroot().itertext()]
    assert any("recall:$a$ b" in each for each in texts)
    assert (texts.count("training"), texts.count("validation")) == (2, 3)


def test_write_curves_is_reproducible(tmp_path):
    for name in ("a.svg", "b.svg"):
        write_curves(tmp_path / name, rows(3))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_write_curves_without_rows(tmp_path):
    write_curves(tmp_path / "curves.svg", [])
    assert list(tmp_path.iterdir()) == []
