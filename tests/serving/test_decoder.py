import io

import numpy as np
import pytest
from PIL import Image

from library.dataset.images import ImageOptions, convert_image
from library.serving.decoder import UploadDecoder
from library.serving.refusals import RefusedError
from tests.dataset.test_image_pool import crashing, encode  # noqa: F401

OPTIONS = ImageOptions(max_edge=20, max_pixels=1_000_000)


def test_it_gives_what_the_network_learned_from_and_a_picture_to_show():
    content = encode("red", size=(1000, 250))
    with UploadDecoder(OPTIONS) as decoder:
        assert decoder.decode(content) == (convert_image(content, OPTIONS), None)
        converted, shown = decoder.decode(content, is_shown=True)
    assert converted == convert_image(content, OPTIONS)
    assert shown.shape == (160, 640, 3)
    assert np.array_equal(shown[0, 0], (255, 0, 0))


def test_what_makes_the_decoder_crash_is_refused_and_the_next_one_decoded(crashing):  # noqa: F811
    with UploadDecoder(OPTIONS) as decoder:
        for _ in range(2):
            text = r"the image makes the decoder crash \(SIGSEGV\)"
            with pytest.raises(RefusedError, match=text) as caught:
                decoder.decode(encode("red") + b"crash")
            assert caught.value.word == "damaged_image"
            assert decoder.decode(encode("red"))[0][1:] == (7, 20)


def test_what_takes_too_long_is_refused():
    large = io.BytesIO()
    Image.effect_noise((900, 900), 99).save(large, "PNG")
    with UploadDecoder(OPTIONS, seconds=0.001) as decoder:
        with pytest.raises(RefusedError, match=r"takes more than 0\.001 s to decode") as caught:
            decoder.decode(large.getvalue())
        assert caught.value.word == "damaged_image"


@pytest.mark.parametrize(
    ("content", "word", "text"),
    [
        (b"hello", "no_image_format", "the upload is no JPEG, PNG, GIF, BMP, TIFF or WebP image"),
        (encode("red")[:60], "damaged_image", "the image can't be decoded: "),
        (
            encode("red", size=(2000, 501)),
            "too_many_pixels",
            "the image has 2000 x 501 pixels, more than 1 million",
        ),
    ],
)
def test_what_can_not_be_used_is_refused_with_a_word(content, word, text):
    with UploadDecoder(OPTIONS) as decoder, pytest.raises(RefusedError, match=text) as caught:
        decoder.decode(content)
    assert caught.value.word == word
