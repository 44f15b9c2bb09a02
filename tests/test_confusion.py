import base64
import io
import re

import numpy as np
from PIL import Image

from library.reporting.confusion import confused_pairs, confusion_section

MATRIX = [[5, 0, 1], [0, 2, 8], [0, 0, 0]]


def test_the_most_confused_come_first_with_their_share():
    assert confused_pairs(MATRIX) == [(1, 2, 8, 0.8), (0, 2, 1, 1 / 6)]
    assert confused_pairs(np.eye(3, dtype=int)) == []


def test_few_classes_are_a_table_of_counts():
    made = "\n".join(confusion_section(MATRIX, ("a<", "b", "c")))
    assert "a&lt;" in made
    assert ">8</td>" in made
    assert ">80.0%<" in made
    assert "<img" not in made


def test_many_classes_are_a_picture_and_the_worst_pairs():
    matrix = 9 * np.eye(100, dtype=int)
    matrix[3, 70] = 4
    made = "\n".join(confusion_section(matrix, [f"class {n}" for n in range(100)]))
    encoded = re.search(r"base64,([^\"]+)", made)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert pixels.shape == (100, 100, 4)
    red, green, *_, strength = pixels[3, 70]
    assert red > green
    assert strength > pixels[70, 3, 3]
    assert "class 70" in made
    assert len(made) < 20_000
