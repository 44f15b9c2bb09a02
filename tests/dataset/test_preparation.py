import json

from library.dataset.images import ImageOptions
from library.dataset.preparation import describe_split, read_image_options
from library.dataset.splits import read_splits
from library.dataset.unconverted import read_unconverted
from tests.conftest import convert, write_colors


def test_what_a_conversion_was_told_comes_back(tmp_path):
    write_colors(tmp_path / "train", 2)
    options = ("--max_edge", "12", "--background", "#010203", "--max_megapixels", "2")
    convert(tmp_path / "train", tmp_path, "train", *options, "--color_space=gray", "--quality=80")
    (split,) = read_splits(tmp_path, "train")
    described = json.loads(json.dumps(describe_split(split)))
    assert described["examples"] == 6
    assert described["class_counts"] == {"blue": 2, "green": 2, "red": 2}
    assert described["fingerprint"] == split.fingerprint
    assert read_image_options(described["images"]) == ImageOptions(
        12, 80, "gray", (1, 2, 3), 2_000_000
    )


def test_what_was_never_converted_is_not_made_smaller(tmp_path):
    write_colors(tmp_path / "train", 2)
    (split,) = read_unconverted(tmp_path, ["train"], "folder")
    assert read_image_options(describe_split(split)["images"]).max_edge == 0


def test_what_is_not_told_has_its_default():
    assert read_image_options({}) == ImageOptions()
