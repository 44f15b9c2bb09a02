import numpy as np
import pytest

from library.dataset.images import UnusableImageError
from library.dataset.sources.base import LabeledFile
from library.prediction.preprocess import predict_files


class FirstByte:
    """Stands for preparing: an image is its first byte, and what is too long needs memory."""

    def pixels(self, content):
        if content == b"":
            raise UnusableImageError("is empty")
        if len(content) > 1:
            raise MemoryError
        return np.array([content[0]], np.uint8)


class Recorder:
    """Stands for a network: gives back what it sees, and remembers how many at once."""

    def __init__(self):
        self.sizes = []

    def predict(self, pixels):
        self.sizes.append(len(pixels))
        return pixels.astype(np.float32), 2 * pixels.astype(np.float32)


def file(number, *place):
    return LabeledFile(str(number), "", 0, 0, place or ("content", bytes([number])))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_every_file_has_its_prediction_in_order(count):
    recorder = Recorder()
    files = (file(number) for number in range(count))
    found = list(predict_files(files, FirstByte(), recorder, batch_size=8, threads=3))
    assert [(each.name, *each.probabilities, *each.embedding) for each in found] == [
        (str(number), number, 2 * number) for number in range(count)
    ]
    assert sum(recorder.sizes) == count
    assert max(recorder.sizes, default=0) <= 8


def test_what_can_not_be_read_has_its_reason_and_the_rest_is_done():
    files = [
        *[file(1, "content", b""), file(2), file(3, "none", "is no regular file")],
        *[file(4, "content", b"long"), file(5, "file", "/no/such/file"), file(6)],
    ]
    found = list(predict_files(files, FirstByte(), Recorder(), batch_size=2))
    assert [each.reason for each in found] == [
        *["is empty", None, "can't be read: is no regular file"],
        *["needs too much memory to decode", "can't be read: No such file or directory", None],
    ]
    assert [each.probabilities is None for each in found] == [
        each.reason is not None for each in found
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_scores_that_are_no_numbers_are_no_answer_for_their_image_alone(value, where):
    class Broken(Recorder):
        def predict(self, pixels):
            given = super().predict(pixels)
            given[where][pixels == 2] = value
            return given

    found = list(predict_files(map(file, range(4)), FirstByte(), Broken(), batch_size=4))
    reasons = [None, None, "gives scores that are no numbers", None]
    assert [each.reason for each in found] == reasons
    assert [each.probabilities is None for each in found] == [False, False, True, False]
    assert found[2].embedding is None
    assert found[3].probabilities == 3


def test_no_more_is_read_than_a_few_batches_ahead():
    taken = []
    files = (taken.append(number) or file(number % 256) for number in range(1000))
    stream = predict_files(files, FirstByte(), Recorder(), batch_size=4)
    for _ in range(100):
        next(stream)
    assert len(taken) <= 100 + 3 * 4
    stream.close()
