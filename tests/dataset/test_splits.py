import shutil
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as some

import convert_dataset
from library.dataset.folds import read_fold_splits, read_folds
from library.dataset.locations import FileLocation
from library.dataset.manifest import Manifest, Shard, manifest_path, write_manifest
from library.dataset.sources.base import LabeledFile
from library.dataset.split_assignment import Splitter, read_fractions
from library.dataset.splits import (
    find_joined,
    find_training_manifest,
    order_classes,
    read_split,
    read_splits,
    sort_classes,
)
from library.errors import DataError, SettingsError
from tests.conftest import convert, write_colors


def test_read_splits_keeps_order(colors):
    test, train = read_splits(colors, "test", "train")
    assert (test.examples, train.examples) == (18, 60)
    assert train.classes == ("blue", "green", "red")


def test_missing_split_names_command(tmp_path):
    with pytest.raises(DataError, match=r"python convert_dataset.py --dataset_dir \S+/train"):
        read_splits(tmp_path, "train")


def test_single_and_multi_label_splits_are_refused(colors, patches, tmp_path):
    shutil.copytree(colors / "train", tmp_path / "train")
    shutil.copytree(patches / "test", tmp_path / "test")
    with pytest.raises(DataError, match=r"test is multi-label.*--label_separator"):
        read_splits(tmp_path, "train", "test")


def test_read_split_reads_one(colors):
    (train,) = read_splits(f"{colors}/", "train")
    assert train == read_split(colors / "train", "train")
    with pytest.raises(DataError, match=r"apart/train.manifest.json is missing"):
        read_split("apart", "train")


def test_read_splits_needs_store_package(monkeypatch):
    def lack(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.get_filesystem_class", lack)
    with pytest.raises(DataError, match=r"gs://bucket/data/train/train.manifest.json needs a pa"):
        read_splits("gs://bucket/data", "train")


def test_different_classes_are_named(colors, tmp_path):
    shutil.copytree(colors / "train", tmp_path / "train")
    write_colors(tmp_path / "images", 2)
    (tmp_path / "images" / "red").rename(tmp_path / "images" / "rot")
    convert(tmp_path / "images", tmp_path / "apart", "validation")
    shutil.copytree(tmp_path / "apart" / "validation", tmp_path / "validation")
    with pytest.raises(DataError, match=r"different classes \(only one has 'red', 'rot'\)"):
        read_splits(tmp_path, "train", "validation")


@pytest.fixture
def training(tmp_path):
    shard = Shard("train_00000-of-00001.tfrecord", 1, 1, "0" * 64)
    write_manifest(Manifest(tmp_path / "train", "train", ("cat", "dog"), (1, 0), (shard,)))
    return manifest_path(tmp_path / "train", "train")


def test_order_classes_sorts_by_code_point():
    assert order_classes({"b", "a", "Z", "é", "10", "9"}) == ("10", "9", "Z", "a", "b", "é")


@pytest.mark.parametrize(
    "names",
    [
        ("1", "2", "10"),
        ("01", "1", "002", "2"),
        ("a", "a1", "a2b3", "a2b10", "a10", "b"),
        ("", "9" * 5000, "1" + "0" * 5000),
        ("9a", "10", "a9"),
    ],
)
def test_natural_order_counts_digits_as_numbers(names):
    assert sort_classes(reversed(names), "natural") == names


@given(some.sets(some.text(max_size=5)))
def test_natural_order_is_total(names):
    assert set(sort_classes(names, "natural")) == names
    without_digits = {each for each in names if not any(c in "0123456789" for c in each)}
    assert sort_classes(without_digits, "natural") == tuple(sorted(without_digits))


def test_order_as_text_is_reported_for_numbers(caplog):
    sort_classes(["1", "2", "3"])
    sort_classes(["10", "2"], "natural")
    assert not caplog.records
    assert sort_classes(map(str, range(12)))[:4] == ("0", "1", "10", "11")
    assert "--class_order natural" in caplog.text


def test_find_training_manifest(training, tmp_path):
    assert find_training_manifest(tmp_path / "test", "test") == training
    assert find_training_manifest(tmp_path / "train", "test") == training
    assert find_training_manifest(tmp_path / "train", "train") is None
    assert find_training_manifest(tmp_path / "elsewhere" / "test", "test") is None


def test_training_split_fixes_classes(training):
    assert order_classes({"dog"}, training) == ("cat", "dog")
    assert order_classes({"dog"}, training.parent) == ("cat", "dog")


def test_class_missing_in_training_is_refused(training):
    with pytest.raises(DataError, match=r"the class 'cow' is not among the classes of .*cat, dog"):
        order_classes({"cat", "cow"}, training)
    with pytest.raises(DataError, match=r"the classes 'ant', 'cow' are not among"):
        order_classes({"cow", "ant"}, training)


def test_training_split_may_be_remote(training):
    pytest.importorskip("fsspec")
    assert order_classes({"dog"}, f"file://{training}") == ("cat", "dog")
    with pytest.raises(DataError, match=r"there is no file://.*/test.manifest.json, or no bucket"):
        order_classes({"dog"}, f"file://{training.parent}/test.manifest.json")


def test_find_joined():
    assert find_joined(("cat", "cat|dog", "dog")) == ("cat|dog", "|")
    assert find_joined(("a", "b", "b, a")) == ("b, a", ",")
    assert find_joined(("cat", "cat|cow", "dog", "hot dog", "|")) is None


FRACTIONS = {"train": 0.7, "validation": 0.2, "test": 0.1}


def test_read_fractions_gives_train_the_rest():
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
        (["folds=1"], "from 2"),
        (["folds=2", "folds=3"], "once"),
        (["folds=3", "validation=0.1"], "take the place of validation"),
    ],
)
def test_read_fractions_refuses_nonsense(words, reason):
    with pytest.raises(SettingsError, match=reason):
        read_fractions(words)


@given(some.sets(some.text(max_size=20)), some.sets(some.text(max_size=20)))
def test_splitter_never_moves_image(names, added):
    before = Splitter(FRACTIONS)
    after = Splitter(FRACTIONS)
    splits = {name: before.split_of(name) for name in names}
    for name in sorted(names | added):
        assert splits.get(name, after.split_of(name)) == after.split_of(name)


def test_splitter_divides_each_class_alike():
    splitter = Splitter(FRACTIONS)
    for label in ("cat", "dog", "ant"):
        counts = Counter(splitter.split_of(f"{label}/{number:05d}.jpg") for number in range(4000))
        for split, fraction in FRACTIONS.items():
            assert counts[split] / 4000 == pytest.approx(fraction, abs=0.03)


def files(**counts):
    for label, count in counts.items():
        for number in range(count):
            yield LabeledFile(f"{label}/{number}", label, 1, 1, FileLocation(""))


def divide(splitter, find):
    return {
        split: [each.name for each in splitter.divide(find, split)] for split in splitter.fractions
    }


@pytest.mark.parametrize("first", FRACTIONS)
def test_splitter_divides_whatever_split_is_first(first):
    splitter = Splitter(FRACTIONS)
    list(splitter.divide(lambda: files(cat=90, dog=2), first))
    divided = divide(splitter, lambda: files(cat=90, dog=2))
    assert divided == divide(Splitter(FRACTIONS), lambda: files(cat=90, dog=2))
    assert sorted(chain(*divided.values())) == sorted(f.name for f in files(cat=90, dog=2))


def rare(classes, images):
    return lambda: files(**{f"c{number:03d}": images for number in range(classes)})


@pytest.mark.parametrize("seed", range(3))
def test_training_has_an_image_of_each_class_by_moving_the_fewest(seed):
    fractions = read_fractions(["validation=0.2", "test=0.2"])
    splitter = Splitter(fractions, seed=seed)
    divided = divide(splitter, rare(200, 4))
    assert len({name.split("/")[0] for name in divided["train"]}) == 200
    assert sorted(chain(*divided.values())) == sorted(each.name for each in rare(200, 4)())
    drawn = {each.name for each in rare(200, 4)() if splitter.split_of(each.name) == "train"}
    lacking = 200 - len({name.split("/")[0] for name in drawn})
    assert 0 < lacking == len(splitter.moved)
    assert set(divided["train"]) == drawn | set(splitter.moved)
    splitter.check()


def test_only_image_of_a_class_is_in_training():
    splitter = Splitter(FRACTIONS)
    divided = divide(splitter, lambda: files(cat=90, **{f"c{number}": 1 for number in range(50)}))
    assert {f"c{number}/0" for number in range(50)} <= set(divided["train"])


def test_added_images_move_at_most_one_other_of_their_class():
    before = divide(Splitter(FRACTIONS), rare(100, 3))
    after = divide(Splitter(FRACTIONS), rare(100, 4))
    left = set(before["train"]) - set(after["train"])
    assert len(left) == len({name.split("/")[0] for name in left}) < 10
    for split in ("validation", "test"):
        assert not set(before[split]) & set(
            chain(*(after[each] for each in after if each != split))
        )


def test_group_is_moved_whole():
    def find():
        for patient in range(40):
            for number in range(3):
                name = f"x/{patient:02d}-{number}"
                yield LabeledFile(name, f"c{patient // 2}", 1, 1, FileLocation(""))

    splitter = Splitter({"train": 0.4, "validation": 0.3, "test": 0.3}, "[0-9]+-")
    divided = divide(splitter, find)
    assert len({int(name[2:4]) // 2 for name in divided["train"]}) == 20
    assert len(splitter.moved) in range(3, 60, 3)
    for names in divided.values():
        assert set(Counter(name[:4] for name in names).values()) <= {3}


def test_image_of_several_lacking_classes_is_moved_alone():
    labels = {**{f"a{n}": ("a",) for n in range(4)}, "both": ("a", "b"), "b0": ("b",)}
    for seed in range(2000):
        splitter = Splitter(FRACTIONS, seed=seed)
        if all(splitter.split_of(name) != "train" for name in labels):
            break
    found = [LabeledFile(name, label, 1, 1, FileLocation("")) for name, label in labels.items()]
    assert [each.name for each in splitter.divide(lambda: found, "train")] == ["both"]


def test_splitter_refuses_empty_split():
    splitter = Splitter(FRACTIONS)
    assert len(list(splitter.divide(lambda: files(cat=1), "train"))) == 1
    with pytest.raises(DataError, match="validation gets no image: add images"):
        splitter.check()
    with pytest.raises(DataError, match="gets no image"):
        splitter.check(empty="test")
    splitter = Splitter(FRACTIONS)
    assert list(splitter.divide(list, "train")) == []
    splitter.check()


def test_splitter_keeps_groups_together():
    splitter = Splitter(FRACTIONS, r"(patient[0-9]+)")
    for patient in range(50):
        names = [f"{label}/patient{patient}_{n}.jpg" for label in ("ill", "well") for n in range(5)]
        assert len({splitter.split_of(name) for name in names}) == 1
    whole = Splitter(FRACTIONS, r"patient[0-9]+")
    assert whole.split_of("ill/patient7_1.jpg") == splitter.split_of("ill/patient7_2.jpg")


def test_splitter_refuses_missing_group_and_bad_pattern():
    with pytest.raises(DataError, match=r"nothing in 'cat/1\.jpg' matches"):
        Splitter(FRACTIONS, "patient[0-9]+").split_of("cat/1.jpg")
    with pytest.raises(SettingsError, match="is not a regular expression"):
        Splitter(FRACTIONS, "(")


def test_splitter_seed_changes_splits():
    names = [f"{number}" for number in range(100)]
    splits = [[Splitter(FRACTIONS, "", seed).split_of(n) for n in names] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


FOLDS = ["folds=3", "test=0.2"]


def test_read_fractions_of_folds():
    fractions = read_fractions(FOLDS)
    assert list(fractions) == ["fold_1", "fold_2", "fold_3", "test"]
    assert list(fractions.values()) == pytest.approx([0.8 / 3] * 3 + [0.2])
    assert str(Splitter(fractions)) == "folds=3,test=0.2"


def test_folds_leave_the_test_split_as_it_is():
    names = [f"{number}.jpg" for number in range(1000)]
    folds, plain = Splitter(read_fractions(FOLDS)), Splitter(read_fractions(["test=0.2"]))
    divided = [(folds.split_of(name), plain.split_of(name)) for name in names]
    assert {pair for pair in divided if "test" in pair} == {("test", "test")}
    counts = Counter(each for each, _ in divided)
    assert min(counts.values()) > 150
    assert folds.folds == counts.keys() - {"test"}


def test_folds_have_all_classes_together():
    find = rare(200, 2)
    splitter = Splitter(read_fractions(FOLDS))
    divided = divide(splitter, find)
    names = list(chain(*divided.values()))
    assert sorted(names) == sorted({each.name for each in find()})
    in_folds = {each.split("/")[0] for fold in splitter.folds for each in divided[fold]}
    assert in_folds == splitter.labels == {each.label for each in find()}
    # Only images of classes that the test split would have had for itself were moved.
    assert splitter.moved
    assert set(splitter.moved) <= set(divided["fold_1"])
    assert {splitter.split_of(name) for name in splitter.moved} == {"test"}


def test_folds_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(DataError, match="--split folds=5"):
        read_folds(str(tmp_path))
    write_colors(tmp_path / "images", 4)
    data = {words: tmp_path / words for words in ("folds=2", "folds=3")}
    for words, folder in data.items():
        arguments = ["--dataset_dir", tmp_path / "images", "--tfrecord_dir", folder]
        convert_dataset.main(list(map(str, [*arguments, "--split", words])))
    assert [each.name for each in read_folds(str(data["folds=2"]))] == ["fold_1", "fold_2"]
    splits = read_fold_splits(str(data["folds=2"]), 2)
    assert [each.name for each in splits["validation"].parts] == ["fold_2"]
    assert (
        splits["train"].fingerprint == read_split(data["folds=2"] / "fold_1", "fold_1").fingerprint
    )
    with pytest.raises(SettingsError, match="fold 3"):
        read_fold_splits(str(data["folds=2"]), 3)
    shutil.rmtree(data["folds=3"] / "fold_2")
    shutil.copytree(data["folds=2"] / "fold_2", data["folds=3"] / "fold_2")
    with pytest.raises(DataError, match=r"folds=3.*fold_2.*folds=2"):
        read_folds(str(data["folds=3"]))
