import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from library.reporting.image_tags import thumbnail

RANDOM = np.random.default_rng(0)


def read(made):
    kind, content = re.search(r"data:image/(\w+);base64,([^\"]+)", made).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_keeps_each_pixel(channels):
    pixels = RANDOM.integers(0, 256, (28, 28, channels), np.uint8)
    made = thumbnail(pixels)
    kind, image = read(made)
    assert kind == "png"
    assert "pixelated" in made
    assert (np.asarray(image).reshape(pixels.shape) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_one_is_shrunk_and_small_in_bytes(channels):
    made = thumbnail(RANDOM.integers(0, 256, (224, 224, channels), np.uint8))
    kind, image = read(made)
    assert (kind, image.size) == ("jpeg", (128, 128))
    assert len(made) < 25_000, "noise, which compresses worst"
