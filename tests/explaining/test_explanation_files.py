import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import run
from library.errors import run_main
from library.explaining.explanation import Answer, Explanation, Picture, explain_pictures
from library.explaining.explanation_files import draw_kernels, summarize, write_explanation
from library.explaining.feature_maps import LayerMaps
from library.explaining.grad_cam import HIRES_CAM, OCCLUSION
from library.explaining.neighbors import Neighbor
from project.networks import NETWORKS
from tests.conftest import COLORS, ROOT
from tests.helpers.hub_modules import save_module

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
HEAT = np.array([[0.0, 1.0]], np.float32)


def make_explanation(name="../cat <1>.jpg"):
    nearest = (Neighbor(7, "dog/7.png", 1, 0.875, PIXELS), ("dog",))
    ranking = (("cat", 0.75), ("dog", 0.25))
    run_main = Answer(
        Picture(name, PIXELS, ("dog",)), ranking, {"cat": HEAT, "dog": HEAT}, (nearest,)
    )
    layers = (LayerMaps("base/conv", (4, 4, 2), Image.new("L", (9, 4), 77), 0.5),)
    return Explanation((run_main,), OCCLUSION, None, np.ones((3, 3, 1, 2), np.float32), layers)


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
        "neighbors/01_cat-1.png",
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


def call(capsys, *arguments):
    code = run_main(run.main, ["explain", *arguments], "run.py")
    return code, *capsys.readouterr()


def test_the_command_explains_images_of_the_test_split(capsys, monkeypatch, snapshot_run, tmp_path):
    monkeypatch.chdir(ROOT)
    options = [*snapshot_run.options, "--best_model_dir", str(snapshot_run.folder / "best")]
    options[options.index("--run_dir") + 1] = str(tmp_path / "run")
    code, out, err = call(capsys, *options, "--explain_images", "3", "--explain_neighbors", "2")
    assert code == 0, err
    told = json.loads(out)
    assert told["page"] == str(tmp_path / "run" / "explain" / "explain.html")
    assert {each["truth"][0] for each in told["images"]} == {"blue", "green", "red"}
    for each in told["images"]:
        assert each["class"] == each["truth"][0]
        # Noise of one color is most like noise of the same.
        assert [near["classes"] for near in each["nearest"]] == [each["truth"]] * 2
    assert Path(told["page"]).stat().st_size < 200_000
    assert f"heat by {HIRES_CAM}; open {told['page']} in a browser" in err


def test_the_command_explains_given_images_without_any_data(
    capsys, monkeypatch, snapshot_run, tmp_path
):
    monkeypatch.chdir(ROOT)
    Image.new("RGB", (30, 20), COLORS["red"]).save(tmp_path / "red.png")
    (tmp_path / "words.png").write_text("no image")
    options = ["--run_dir", str(tmp_path), "--data_dir", str(tmp_path / "none")]
    options += ["--best_model_dir", str(snapshot_run.folder / "best")]
    files = [str(tmp_path / "red.png"), str(tmp_path / "words.png")]
    code, out, err = call(capsys, *files, *options)
    assert code == 0, err
    (told,) = json.loads(out)["images"]
    assert (told["class"], told["truth"], told["nearest"]) == ("red", None, [])
    assert "words.png is not a JPEG, PNG, GIF, BMP, TIFF or WebP image: left out" in err
    assert "without the nearest training images: " in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere.png"], 3, "there is no file or folder nowhere.png"),
        (["--best_model_dir", "nowhere"], 4, "no snapshot in nowhere"),
        (["--explain_layer", "scores"], 2, "unknown layer with maps 'scores'"),
        (["--data_dir", "nowhere"], 3, "nowhere"),
        ([str(ROOT / "LICENSE")], 3, "none of the files is an image that can be used"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    capsys, monkeypatch, snapshot_run, arguments, code, text
):
    monkeypatch.chdir(ROOT)
    options = [*snapshot_run.options]
    if "--data_dir" in arguments:
        del options[options.index("--data_dir") : options.index("--data_dir") + 2]
    found, out, err = call(capsys, *arguments, *options)
    assert (found, out) == (code, "")
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_module_of_tf_hub_has_no_layers_to_reach(tmp_path):
    save_module(tmp_path / "module")
    keras.utils.clear_session()  # Else the layers' numbers count those of other tests too.
    options = {"hub_handle": tmp_path / "module", "dropout_rate": 0.0}
    network = NETWORKS["hub"]((6, 6, 3), 3, **options)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    explanation = explain_pictures(network, ("a", "b", "c"), [Picture("x", pixels)])
    assert (explanation.method, explanation.layer) == (OCCLUSION, None)
    assert [each.name for each in explanation.layers][-3:] == ["activation", "embedding", "scores"]
    write_explanation(explanation, tmp_path / "explain", "hub")
    text = (tmp_path / "explain" / "explain.html").read_text()
    assert "this is not Grad-CAM but occlusion" in text
