"""suspects.json: written, read back, refused if damaged."""

import json
from dataclasses import replace

import pytest

from library.cleaning.suspects import (
    SUSPECTS,
    NearImage,
    Suspect,
    Suspects,
    read_suspects,
    write_suspects,
)
from library.errors import DataError

NEAR = NearImage("dog/1.jpg", ["dog"], "thumbnails/n1.jpg")
SUSPECT = Suspect(
    id=0,
    file="cat/7 ä.jpg",
    sha256=None,
    label=["cat"],
    suggestion=["dog"],
    score=0.03,
    reasons=["neighbors"],
    explanation="9 of 10 neighbors are dog",
    probability_label=0.1,
    probability_suggestion=0.9,
    thumbnail="thumbnails/0.jpg",
    neighbors=[NEAR],
)
FOUND = Suspects(["cat", "dog"], False, "train", None, "out/current", "in_sample", 10, [SUSPECT])


def test_written_suspects_are_read_back(tmp_path):
    write_suspects(tmp_path / "cleaning", FOUND)
    assert read_suspects(tmp_path / "cleaning") == FOUND
    content = json.loads((tmp_path / "cleaning" / SUSPECTS).read_bytes())
    assert content["version"] == 1
    assert content["suspects"][0]["neighbors"][0]["file"] == "dog/1.jpg"


@pytest.mark.parametrize(
    "changed",
    [
        {"thumbnail": "../project.yaml"},
        {"thumbnail": "thumbnails/../0.jpg"},
        {"thumbnail": "/etc/passwd"},
        {"label": ["eel"]},
        {"id": 1},
        {"neighbors": [replace(NEAR, thumbnail="0.jpg")]},
    ],
)
def test_contradictions_are_refused(changed, tmp_path):
    write_suspects(tmp_path, replace(FOUND, suspects=[replace(SUSPECT, **changed)]))
    with pytest.raises(DataError, match=SUSPECTS):
        read_suspects(tmp_path)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"version": 2}', '{"version": 1}'])
def test_other_files_are_refused(text, tmp_path):
    if text is not None:
        (tmp_path / SUSPECTS).write_text(text)
    with pytest.raises(DataError, match=SUSPECTS):
        read_suspects(tmp_path)
