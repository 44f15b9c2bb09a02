import re

import numpy as np
import pytest
from PIL import Image

import run
from library.dataset.unconverted import GeneratedSplit, read_generated
from library.errors import DataError, run_main
from project import inputs

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 1), np.uint8)


def test_generated_pixels_and_bytes_become_records(tmp_path):
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "image.png")

    def generate(split):
        yield PIXELS, "b"
        yield (tmp_path / "image.png").read_bytes(), "a"

    (split,) = read_generated(generate, ["train"])
    first, second = split.records()
    assert (first.height, first.width, first.label, first.text) == (6, 5, 1, "b")
    assert (second.height, second.width, second.label, second.text) == (3, 4, 0, "a")
    assert split.class_counts == (1, 1)
    assert "was run once to count its 2 images" in split.describe()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ((np.zeros((3, 3), np.uint8), "a"), "is uint8 (3, 3); pixels are uint8 (height, width, 1"),
        ((np.zeros((3, 3, 3)), "a"), "is float64 (3, 3, 3); pixels are"),
        ((np.zeros((0, 3, 3), np.uint8), "a"), "is (0, 3, 3); an edge has from 1 to 65,500 pixels"),
        ((np.zeros((65_501, 1, 3), np.uint8), "a"), "is (65501, 1, 3); an edge has from 1"),
        ((b"text", "a"), "is not a JPEG"),
        (("cat/7.jpg", "a"), "is 'cat/7.jpg'; an image is a numpy array of uint8"),
        (([[1]], "a"), "is list of 1; an image is"),
        ((PIXELS, 3), "has 3 as its label; a label is the name of a class, a str"),
        ((PIXELS, np.int64(3)), "has int64 as its label; a label is"),
        ((PIXELS, ""), "has '' as its label; a label is"),
        ((PIXELS, ["a", "b"]), "has list of 2 as its label; a label is"),
        (PIXELS, "is ndarray; it must be a pair: (image, class name)"),
        ((PIXELS, "a", 1), "is tuple of 3; it must be a pair"),
    ],
)
def test_what_a_generator_should_not_yield_is_named_when_it_is_counted(image, text):
    with pytest.raises(DataError) as caught:
        GeneratedSplit(lambda name: [(PIXELS, "a")] * 4 + [image], "train")
    assert str(caught.value).startswith(f"image 4 of the generator's split train {text}")


def test_what_only_looks_like_an_image_is_named_when_it_is_read():
    split = GeneratedSplit(lambda name: [(PIXELS, "a")] * 3 + [(b"text", "a")], "train")
    with pytest.raises(DataError, match="image 3 of the generator's split train is not a JPEG"):
        list(split.records())


def test_a_function_that_yields_nothing_is_named():
    with pytest.raises(DataError, match=r"split train is None: it must yield \(image, class name"):
        read_generated(lambda name: None, ["train"])
    with pytest.raises(DataError, match="the generator's split validation holds no images of any"):
        read_generated(lambda name: [(PIXELS, "a")] * (name == "train"), ["train", "validation"])


@pytest.mark.parametrize(("count", "words"), [(39, "only 39"), (0, "only 0"), (41, "more")])
def test_more_or_fewer_images_than_were_counted_are_an_error_before_the_last_one(count, words):
    split = GeneratedSplit(lambda name: [(PIXELS, "a")] * 40, "train")
    split._generate = lambda name: [(PIXELS, "a")] * count
    records = split.records()
    for _ in range(min(max(count - 1, 0), 39)):
        next(records)
    text = f"split train yielded 40 images when they were counted, and now {words}: it must"
    with pytest.raises(DataError, match=text):
        next(records)


def test_a_class_that_was_not_there_when_they_were_counted_is_named():
    split = GeneratedSplit(lambda name: [(PIXELS, "a")], "train")
    split._generate = lambda name: [(PIXELS, "b")]
    with pytest.raises(DataError, match=r"image 0 of the .* has the class 'b', which none had w"):
        list(split.records())


@pytest.mark.slow
@pytest.mark.parametrize("change", [-4, 4])
@pytest.mark.parametrize("engine", ["loop", "fit"])
def test_a_run_ends_by_name_where_the_generator_yields_otherwise_later(
    capsys, monkeypatch, options, engine, change
):
    called = []

    def generate(split):
        called.append(split)
        count = 32 + (called.count("train") > 1 and split == "train") * change
        for number in range(count):
            yield PIXELS, "ab"[number % 2]

    monkeypatch.setattr(inputs, "generate_images", generate)
    arguments = [*options, "--data_format", "generator", "--engine", engine]
    assert run_main(run.main, arguments, "run.py") == 3
    now = "more" if change > 0 else "only 28"
    assert re.search(
        f"error: the generator's split train yielded 32 images when .* and now {now}",
        capsys.readouterr().err.splitlines()[-1],
    )
