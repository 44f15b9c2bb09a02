import base64
import io
import re

import numpy as np
from PIL import Image

from library.reporting.confusion_matrix import confused_pairs, confusion_section

CELLS = np.array([[0, 0, 5], [0, 2, 1], [1, 1, 2], [1, 2, 8]])


def test_the_most_confused_come_first_with_their_share():
    assert confused_pairs(CELLS) == [(1, 2, 8, 0.8), (0, 2, 1, 1 / 6)]
    assert confused_pairs(CELLS[:1]) == []


def test_few_classes_are_a_table_of_counts():
    made = "\n".join(confusion_section(CELLS, ("a<", "b", "c")))
    assert "a&lt;" in made
    assert ">8</td>" in made
    assert ">80.0%<" in made
    assert "<img" not in made


def test_many_classes_are_a_picture_and_the_worst_pairs():
    cells = np.array([[n, n, 9] for n in range(100)] + [[3, 70, 4]])
    made = "\n".join(confusion_section(cells, [f"class {n}" for n in range(100)]))
    encoded = re.search(r"base64,([^\"]+)", made)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert pixels.shape == (100, 100, 4)
    red, green, *_, strength = pixels[3, 70]
    assert red > green
    assert strength > pixels[70, 3, 3]
    assert "class 70" in made
    assert len(made) < 20_000


def test_thousands_of_classes_are_the_worst_pairs_alone():
    names = [f"class {n}" for n in range(100_000)]
    made = "\n".join(confusion_section(np.array([[3, 3, 1], [3, 70_000, 2]]), names))
    assert "class 70000" in made
    assert "<img" not in made
    assert "Rows are" not in made
