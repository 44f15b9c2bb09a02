import random

import pytest

from library.dataset.file_index import FileIndex, name_hash
from library.dataset.locations import FileLocation, NoLocation
from library.dataset.sources.base import LabeledFile

FILES = [LabeledFile(f"c{n % 3}/{n}", f"c{n % 3}", n, n, FileLocation("x")) for n in range(200)]


def names(listing):
    try:
        return [listing[number].name for number in range(len(listing))]
    finally:
        listing.close()


def test_the_order_does_not_depend_on_how_files_were_found():
    shuffled = random.Random(0).sample(FILES, len(FILES))
    one, other = FileIndex(FILES), FileIndex(shuffled)
    assert one.fingerprint == other.fingerprint
    assert one.counts == {"c0": 67, "c1": 67, "c2": 66}
    found = [other.found_at(number) for number in range(200)]
    assert names(one) == names(other) == [shuffled[number].name for number in found]


def test_a_seed_gives_another_order_and_a_change_another_fingerprint():
    assert names(FileIndex(FILES)) != names(FileIndex(FILES, 1))
    changed = [LabeledFile("c0/0", "c0", 0, 99, FileLocation("x")), *FILES[1:]]
    unread = [LabeledFile("c0/0", "c0", 0, 0, NoLocation("it is a link")), *FILES[1:]]
    listings = [FileIndex(FILES), FileIndex(changed), FileIndex(unread), FileIndex(FILES[1:])]
    assert len({each.fingerprint for each in listings}) == 4
    for each in listings:
        each.close()


def test_an_error_in_finding_closes_the_file():
    def failing():
        yield FILES[0]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        FileIndex(failing())


def test_a_hash_is_the_same_on_any_machine():
    assert name_hash("cat/1.jpg", 8).hex() == "32018dafbde900d2"
    assert name_hash("\udcff", 8) != name_hash("\udcfe", 8)
