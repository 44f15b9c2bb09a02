"""Explanations as files and a page, and the command that writes them."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import run
from library.errors import run_main
from library.explaining.explanation import (
    Explanation,
    ImageExplanation,
    InputImage,
    explain_images,
)
from library.explaining.explanation_files import (
    draw_kernels,
    explanation_json,
    render_explanation,
    write_explanation,
)
from library.explaining.feature_maps import LayerOutput
from library.explaining.grad_cam import GRAD_CAM, HIRES_CAM, OCCLUSION
from library.explaining.neighbors import Neighbor
from tests.conftest import COLORS, ROOT
from tests.helpers.hub_modules import save_module
from tests.helpers.small_networks import build

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
HEATMAP = np.array([[0.0, 1.0]], np.float32)


def make_explanation(name="../cat <1>.jpg"):
    image = ImageExplanation(
        InputImage(name, PIXELS, ("dog",)),
        ranking=(("cat", 0.75), ("dog", 0.25)),
        heatmaps={"cat": HEATMAP, "dog": HEATMAP},
        neighbors=((Neighbor(7, "dog/7.png", 1, 0.875, PIXELS), ("dog",)),),
    )
    layers = (LayerOutput("base/conv", (4, 4, 2), Image.new("L", (9, 4), 77), 0.5),)
    kernels = np.ones((3, 3, 1, 2), np.float32)
    return Explanation((image,), OCCLUSION, None, kernels, layers)


@pytest.mark.slow
def test_write_explanation(tmp_path):
    folder = tmp_path / "explain"
    (folder / "old").mkdir(parents=True)
    page = write_explanation(make_explanation(), folder, "simple in out/best")
    assert page == folder / "explain.html"
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert found == {
        "explain.html",
        "feature_maps/001_base-conv.png",
        "kernels.png",
        "neighbors/01_cat-1.png",
        "overlays/01_cat-1.png",
    }
    assert [each.name for each in tmp_path.iterdir()] == ["explain"]
    with Image.open(folder / "overlays" / "01_cat-1.png") as image:
        # The image and two heatmaps, each of 224 pixels.
        assert image.width > 3 * 224
    with Image.open(folder / "feature_maps" / "001_base-conv.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [77]


def test_write_explanation_keeps_old_folder_on_error(tmp_path, monkeypatch):
    folder = tmp_path / "explain"
    folder.mkdir()
    (folder / "explain.html").write_text("old")
    renderer = "library.explaining.explanation_files.render_explanation"
    monkeypatch.setattr(renderer, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_explanation(make_explanation(), folder, "")
    assert [each.name for each in folder.iterdir()] == ["explain.html"]


def test_explanation_json():
    content = json.loads(json.dumps(explanation_json(make_explanation())))
    assert content["method"] == OCCLUSION
    assert content["images"] == [
        {
            "file": "../cat <1>.jpg",
            "class": "cat",
            "probability": 0.75,
            "truth": ["dog"],
            "nearest": [{"file": "dog/7.png", "classes": ["dog"], "similarity": 0.875}],
        }
    ]


def test_draw_kernels_enlarges_weights():
    assert draw_kernels(np.ones((3, 3, 3, 4), np.float32)).size == (224, 224)


class Sources(HTMLParser):
    """Collects what a page would fetch, and counts images without an alternative text."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.without_alt = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.fetched += [values[each] for each in ("src", "href") if each in values]
        self.without_alt += tag == "img" and not values.get("alt")


def test_page_holds_its_images_with_alternative_texts():
    sources = Sources(render_explanation(make_explanation(), "simple"))
    # The icon; the image and two heatmaps, a neighbor, the kernels, a layer.
    assert sources.fetched[0] == "data:,"
    assert len(sources.fetched) == 7
    assert all(each.startswith("data:image/webp;base64,") for each in sources.fetched[1:])
    assert sources.without_alt == 0


def test_page_escapes_names():
    page = render_explanation(make_explanation("<script>alert(1)</script>\x1b.png"), "a & b")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b.png" in page
    assert "a &amp; b" in page


def test_page_shows_true_class_probabilities_and_neighbors():
    page = render_explanation(make_explanation(), "simple")
    assert "✗ true class: dog" in page
    assert re.search(r"<td>cat</td><td>75\.0 %", page)
    assert "dog 0.875<br>dog/<wbr>7.png" in page
    assert "evidence for dog" in page
    assert "2 maps of 4 x 4, 50 % zeros" in page


@pytest.mark.parametrize("method", [GRAD_CAM, HIRES_CAM, OCCLUSION])
def test_page_names_the_method(method):
    explanation = replace(make_explanation(), method=method, layer="conv", kernels=None)
    assert f"Heat maps: {method}" in render_explanation(explanation, "simple")


def test_page_says_if_there_is_no_evidence():
    explanation = make_explanation()
    image = replace(explanation.images[0], heatmaps={"cat": 0 * HEATMAP})
    assert "no evidence for cat" in render_explanation(replace(explanation, images=(image,)), "")


def call(capsys, *arguments):
    code = run_main(run.main, ["explain", *arguments], "run.py")
    return code, *capsys.readouterr()


@pytest.mark.slow
def test_command_explains_images_of_the_test_split(capsys, monkeypatch, snapshot_run, tmp_path):
    monkeypatch.chdir(ROOT)
    options = [*snapshot_run.options, "--best_model_dir", str(snapshot_run.folder / "best")]
    options[options.index("--run_dir") + 1] = str(tmp_path / "run")
    code, out, err = call(capsys, *options, "--explain_images", "3", "--explain_neighbors", "2")
    assert code == 0, err
    result = json.loads(out)
    assert result["page"] == str(tmp_path / "run" / "explain" / "explain.html")
    assert {each["truth"][0] for each in result["images"]} == {"blue", "green", "red"}
    for each in result["images"]:
        assert each["class"] == each["truth"][0]
        # Noise of one color is most similar to noise of the same color.
        assert [near["classes"] for near in each["nearest"]] == [each["truth"]] * 2
    assert Path(result["page"]).stat().st_size < 200_000
    assert HIRES_CAM in err
    assert result["page"] in err


@pytest.mark.slow
def test_command_explains_given_images_without_data(capsys, monkeypatch, snapshot_run, tmp_path):
    monkeypatch.chdir(ROOT)
    Image.new("RGB", (30, 20), COLORS["red"]).save(tmp_path / "red.png")
    (tmp_path / "words.png").write_text("no image")
    options = ["--run_dir", str(tmp_path), "--data_dir", str(tmp_path / "none")]
    options += ["--best_model_dir", str(snapshot_run.folder / "best")]
    files = [str(tmp_path / "red.png"), str(tmp_path / "words.png")]
    code, out, err = call(capsys, *files, *options)
    assert code == 0, err
    (result,) = json.loads(out)["images"]
    assert (result["class"], result["truth"], result["nearest"]) == ("red", None, [])
    assert "words.png" in err
    assert "without the nearest training images" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere.png"], 3, "nowhere.png"),
        (["--best_model_dir", "nowhere"], 4, "nowhere"),
        (["--explain_layer", "scores"], 2, "'scores'"),
        (["--data_dir", "nowhere"], 3, "nowhere"),
        ([str(ROOT / "LICENSE")], 3, "none of the files"),
    ],
)
def test_command_error_is_one_line(capsys, monkeypatch, snapshot_run, arguments, code, text):
    monkeypatch.chdir(ROOT)
    options = [*snapshot_run.options]
    if "--data_dir" in arguments:
        del options[options.index("--data_dir") : options.index("--data_dir") + 2]
    found, out, err = call(capsys, *arguments, *options)
    assert (found, out) == (code, "")
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.slow
def test_tf_hub_module_is_explained_by_occlusion(tmp_path):
    save_module(tmp_path / "module")
    keras.utils.clear_session()  # Else the layers' numbers count those of other tests too.
    options = {"hub_handle": tmp_path / "module", "dropout_rate": 0.0}
    network = build("hub", (6, 6, 3), 3, **options)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    explanation = explain_images(network, ("a", "b", "c"), [InputImage("x", pixels)])
    assert (explanation.method, explanation.layer) == (OCCLUSION, None)
    assert [each.name for each in explanation.layers][-3:] == ["activation", "embedding", "scores"]
    page = write_explanation(explanation, tmp_path / "explain", "hub")
    assert f"Heat maps: {OCCLUSION}" in page.read_text()
