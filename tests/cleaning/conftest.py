"""A folder of suspects, as `clean` leaves it."""

import pytest
from PIL import Image

from library.cleaning.suspects import NearImage, Suspect, Suspects, write_suspects

CLASSES = ["blue", "green", "red"]


def make_suspects(count=3, *, multi_label=False, **changed):
    """Red images with the label blue."""
    near = NearImage("red/<n>.png", ["red"], "thumbnails/0.jpg")
    suspects = [
        Suspect(
            id=number,
            file=f"blue/{number} é <b>.png",
            sha256=f"{number:064x}",
            label=["blue"],
            suggestion=["blue", "red"] if multi_label else ["red"],
            score=0.01 * number,
            reasons=["confident_learning", "neighbors"],
            explanation="5 of 6 neighbors are <red>",
            probability_label=0.015,
            probability_suggestion=0.97,
            thumbnail=f"thumbnails/{number}.jpg",
            neighbors=[near, near],
        )
        for number in range(count)
    ]
    given = {"split": "train", "dataset_dir": None, "run": "a b", "predictions": "in_sample"}
    given |= {"images": 40, "suspects": suspects}
    return Suspects(CLASSES, multi_label, **given | changed)


def write_folder(folder, suspects):
    write_suspects(folder, suspects)
    (folder / "thumbnails").mkdir(exist_ok=True)
    for each in suspects.suspects:
        Image.new("RGB", (8, 8), "red").save(folder / each.thumbnail)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "run" / "cleaning", make_suspects())
