from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as some

from library.dataset.locations import FileLocation
from library.dataset.sources.base import LabeledFile
from library.dataset.split_assignment import Splitter, read_fractions
from library.errors import DataError, SettingsError

FRACTIONS = {"train": 0.7, "validation": 0.2, "test": 0.1}


def test_train_has_the_rest_and_comes_first():
    fractions = read_fractions(["validation=0.1", "test=0.2"])
    assert list(fractions) == ["train", "validation", "test"]
    assert fractions["train"] == pytest.approx(0.7)
    assert read_fractions(["test=0.25", "train=0.75"]) == {"train": 0.75, "test": 0.25}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["validation"], "should be like validation=0.1"),
        (["validation=much"], "should be like validation=0.1"),
        (["dev=0.1"], "'dev'; use train, validation, test"),
        (["test=0.1", "test=0.1"], "duplicate name 'test'"),
        (["test=1.5"], "test is 1.5, not between 0 and 1"),
        (["test=0.6", "validation=0.6"], "leave nothing for train"),
        (["train=0.5", "test=0.1"], "leave nothing for train, or do not add up"),
    ],
)
def test_words_that_make_no_sense_are_refused(words, reason):
    with pytest.raises(SettingsError, match=reason):
        read_fractions(words)


@given(some.sets(some.text(max_size=20)), some.sets(some.text(max_size=20)))
def test_adding_images_never_moves_one(names, added):
    before = Splitter(FRACTIONS)
    after = Splitter(FRACTIONS)
    splits = {name: before.split_of(name) for name in names}
    for name in sorted(names | added):
        assert splits.get(name, after.split_of(name)) == after.split_of(name)


def test_every_class_is_divided_in_the_same_proportions():
    splitter = Splitter(FRACTIONS)
    for label in ("cat", "dog", "ant"):
        counts = Counter(splitter.split_of(f"{label}/{number:05d}.jpg") for number in range(4000))
        for split, fraction in FRACTIONS.items():
            assert counts[split] / 4000 == pytest.approx(fraction, abs=0.03)


def files(**counts):
    for label, count in counts.items():
        for number in range(count):
            yield LabeledFile(f"{label}/{number}", label, 1, 1, FileLocation(""))


def test_files_are_divided_and_it_is_told_which_classes_a_split_lacks():
    divided = {
        split: [each.name for each in Splitter(FRACTIONS).divide(files(cat=90, dog=2), split)]
        for split in FRACTIONS
    }
    assert sorted(chain(*divided.values())) == sorted(f.name for f in files(cat=90, dog=2))
    splitter = Splitter(FRACTIONS)
    list(splitter.divide(files(cat=90, dog=2), "test"))
    assert splitter.lacking("train") == {}
    assert splitter.lacking("test") == {"dog": 2}


def test_a_split_without_images_and_a_class_without_any_to_train_on_are_refused():
    with pytest.raises(DataError, match="validation gets no image: add images"):
        list(Splitter(FRACTIONS).divide(files(cat=1), "train"))
    for seed in range(20):
        splitter = Splitter(FRACTIONS, seed=seed)
        if splitter.split_of("dog/0") != "train":
            break
    with pytest.raises(DataError, match="'dog' has 1 image, none in train: add images"):
        list(splitter.divide(files(cat=90, dog=1), "train"))
    assert list(splitter.divide([], "train")) == []


def test_a_group_stays_together_across_classes():
    splitter = Splitter(FRACTIONS, r"(patient[0-9]+)")
    for patient in range(50):
        names = [f"{label}/patient{patient}_{n}.jpg" for label in ("ill", "well") for n in range(5)]
        assert len({splitter.split_of(name) for name in names}) == 1
    whole = Splitter(FRACTIONS, r"patient[0-9]+")
    assert whole.split_of("ill/patient7_1.jpg") == splitter.split_of("ill/patient7_2.jpg")


def test_an_image_of_no_group_and_a_bad_pattern_are_refused():
    with pytest.raises(DataError, match=r"nothing in 'cat/1\.jpg' matches"):
        Splitter(FRACTIONS, "patient[0-9]+").split_of("cat/1.jpg")
    with pytest.raises(SettingsError, match="is not a regular expression"):
        Splitter(FRACTIONS, "(")


def test_a_seed_draws_anew():
    names = [f"{number}" for number in range(100)]
    splits = [[Splitter(FRACTIONS, "", seed).split_of(n) for n in names] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
