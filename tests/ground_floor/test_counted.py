import pytest

from library.messages import counted, counted_classes


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (4000, "4,000 images")]
)
def test_one_is_one_and_all_else_are_several(number, words):
    assert counted(number, "image") == words


def test_words_that_take_more_than_an_s():
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(3, "batch", "batches") == "3 batches"
    assert [counted_classes(each) for each in (1, 10)] == ["1 class", "10 classes"]
