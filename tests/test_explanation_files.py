import json

import numpy as np
import pytest
from PIL import Image

from library.explaining.explanation import Answer, Explanation, Picture
from library.explaining.explanation_files import draw_kernels, summarize, write_explanation
from library.explaining.feature_maps import LayerMaps
from library.explaining.grad_cam import OCCLUSION
from library.explaining.neighbours import Neighbour

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
HEAT = np.array([[0.0, 1.0]], np.float32)


def make_explanation(name="../cat <1>.jpg"):
    nearest = (Neighbour(7, "dog/7.png", 1, 0.875, PIXELS), ("dog",))
    ranking = (("cat", 0.75), ("dog", 0.25))
    answer = Answer(
        Picture(name, PIXELS, ("dog",)), ranking, {"cat": HEAT, "dog": HEAT}, (nearest,)
    )
    layers = (LayerMaps("base/conv", (4, 4, 2), Image.new("L", (9, 4), 77), 0.5),)
    return Explanation((answer,), OCCLUSION, None, np.ones((3, 3, 1, 2), np.float32), layers)


def test_the_folder_holds_a_png_of_each_and_the_page(tmp_path):
    folder = tmp_path / "explain"
    (folder / "old").mkdir(parents=True)
    page = write_explanation(make_explanation(), folder, "simple in out/best")
    assert page == folder / "explain.html"
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert found == {
        "explain.html",
        "feature_maps/001_base-conv.png",
        "kernels.png",
        "neighbours/01_cat-1.png",
        "overlays/01_cat-1.png",
    }
    assert [each.name for each in tmp_path.iterdir()] == ["explain"]
    with Image.open(folder / "overlays" / "01_cat-1.png") as image:
        # The picture and two heat maps, each of 224 pixels.
        assert image.width > 3 * 224
    with Image.open(folder / "feature_maps" / "001_base-conv.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [77]


def test_where_it_cannot_be_written_the_old_one_stays(tmp_path, monkeypatch):
    folder = tmp_path / "explain"
    folder.mkdir()
    (folder / "explain.html").write_text("old")
    monkeypatch.setattr("library.explaining.explanation_files.page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_explanation(make_explanation(), folder, "")
    assert [each.name for each in folder.iterdir()] == ["explain.html"]


def test_the_summary_is_json():
    summary = json.loads(json.dumps(summarize(make_explanation())))
    assert summary["method"] == OCCLUSION
    assert summary["images"] == [
        {
            "file": "../cat <1>.jpg",
            "class": "cat",
            "probability": 0.75,
            "truth": ["dog"],
            "nearest": [{"file": "dog/7.png", "classes": ["dog"], "similarity": 0.875}],
        }
    ]


def test_each_number_of_a_kernel_can_be_seen():
    assert draw_kernels(np.ones((3, 3, 3, 4), np.float32)).size == (224, 224)
