import xml.etree.ElementTree as ET

import pytest

from library.figures.training_curves import write_curves

NAMES = ("loss", "accuracy", "validation_loss", "validation_accuracy")


def rows(count):
    return [{"epoch": n + 1, **dict.fromkeys(NAMES, 1 / (n + 1))} for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_picture_says_what_it_shows(tmp_path, count):
    write_curves(tmp_path / "curves.svg", rows(count), best_epoch=1)
    texts = "".join(ET.parse(tmp_path / "curves.svg").getroot().itertext())
    for word in ("loss", "accuracy", "training", "validation", "epoch", "best: epoch 1"):
        assert word in texts


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a.svg", "b.svg"):
        write_curves(tmp_path / name, rows(3))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_nothing_to_draw_draws_nothing(tmp_path):
    write_curves(tmp_path / "curves.svg", [])
    assert list(tmp_path.iterdir()) == []
