import numpy as np
import pytest

from library.dataset.images import UnusableImageError
from library.dataset.locations import MemoryLocation, NoLocation
from library.dataset.sources.base import LabeledFile
from library.errors import DataError
from library.explaining.explanation import read_pictures


def prepare(content):
    if content == b"huge":
        raise MemoryError
    if content != b"good":
        raise UnusableImageError("is no image")
    return np.zeros((2, 2, 3), np.uint8)


def files(*contents):
    for number, content in enumerate(contents):
        location = MemoryLocation(content) if content is not None else NoLocation("it is a pipe")
        yield LabeledFile(f"{number}.png", "", 4, 0, location)


def test_what_is_no_image_is_told_of_and_the_rest_goes_on():
    said = []
    given = files(b"good", b"text", None, b"huge", b"good")
    pictures = read_pictures(given, prepare, 8, said.append)
    assert [each.name for each in pictures] == ["0.png", "4.png"]
    assert pictures[0].truths is None
    assert said == [
        "1.png is no image: left out",
        "2.png can't be read: it is a pipe: left out",
        "3.png needs too much memory to decode: left out",
    ]


def test_more_than_asked_for_is_said():
    said = []
    assert len(read_pictures(files(*[b"good"] * 3), prepare, 2, said.append)) == 2
    assert said == ["stopping after 2 images; --explain_images takes more"]


def test_none_usable_is_an_error():
    with pytest.raises(DataError, match="none of the files is an image that can be used"):
        read_pictures(files(b"text"), prepare, 2, lambda text: None)
