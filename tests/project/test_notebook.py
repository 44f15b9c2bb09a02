"""Training and evaluating from Python, as docs/notebook.md says."""

import copy
import html
import json
import re
import shutil

import nbformat
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from nbmake.nb_run import NotebookRun
from PIL import Image

import run
from library.errors import DataError, SettingsError
from project.networks import NETWORKS
from project.notebook import train_and_evaluate
from tests.conftest import ROOT, write_colors

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
QUICK = {
    "image_size": 8,
    "batch_size": 20,
    "train_epochs": 1,
    "bootstrap_samples": 20,
    "report": False,
}


@pytest.fixture(autouse=True)
def registry():
    """Forget networks that a test adds."""
    before = dict(NETWORKS)
    yield
    NETWORKS.clear()
    NETWORKS.update(before)


@pytest.mark.slow
def test_examples_of_the_documentation(tmp_path, monkeypatch, capsys):
    for name in ("project.yaml", "hyperparameters.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        exec(block, names)
    out = capsys.readouterr().out
    assert names["metrics"]["images"] == 100
    assert names["metrics"]["accuracy"] > 0.9
    assert out.splitlines()[-1].startswith("['dark', 'light', 'dark', 'light']")
    folder = tmp_path / "out" / "notebook"
    written = json.loads((folder / "evaluation" / "test.json").read_text())
    assert written == json.loads(json.dumps(names["metrics"]))
    assert (folder / "report.html").exists()

    # The commands work on the run.
    pixels = next(names["images"]("test"))[0]
    Image.fromarray(pixels).save(tmp_path / "dark.png")
    run.main(["predict", "dark.png", "--run_dir", "out/notebook"])
    assert "dark.png,dark," in capsys.readouterr().out.replace('"', "")
    run.main(["compare", "out/notebook"])
    assert "notebook" in capsys.readouterr().out

    # Finished: trained no further, only evaluated.
    rows = (folder / "history.csv").read_text()
    again = names["train_and_evaluate"](
        names["two_layers"],
        names["images"],
        run_dir="out/notebook",
        image_size=32,
        train_epochs=10,
        batch_size=20,
        learning_rate=0.01,
    )
    assert (again["accuracy"], again["loss"]) == (written["accuracy"], written["loss"])
    assert (folder / "history.csv").read_text() == rows


def images(split):
    for number in range(20):
        yield np.full((8, 8, 3), 200 * (number % 2), np.uint8), "ab"[number % 2]


def test_network_by_name_and_images_from_a_function(tmp_path):
    metrics = train_and_evaluate("simple", images, run_dir=str(tmp_path), width=4, **QUICK)
    assert (metrics["split"], metrics["images"]) == ("test", 20)
    settings = (tmp_path / "hyperparameters.yaml").read_text()
    assert re.search(r"width: 4 +# ", settings)


def test_converted_data(tmp_path, colors):
    metrics = train_and_evaluate(
        "simple", colors, run_dir=str(tmp_path), augmentations=["flip", "hue=0.5"], **QUICK
    )
    assert metrics["images"] == 18
    assert "augmentations: [flip, hue=0.5]" in (tmp_path / "hyperparameters.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "error", "names"),
    [
        ({"train_epoch": 1}, SettingsError, "train_epochs"),
        ({"train_epochs": -1}, SettingsError, "train_epochs"),
        ({"model": "simple"}, TypeError, "model"),
    ],
)
def test_wrong_settings(tmp_path, settings, error, names):
    with pytest.raises(error, match=names):
        train_and_evaluate("simple", images, run_dir=str(tmp_path), **settings)


def test_missing_data(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        train_and_evaluate("simple", tmp_path / "nowhere", run_dir=str(tmp_path / "run"))


COLAB = nbformat.read(ROOT / "docs" / "colab.ipynb", nbformat.NO_CONVERT)


def test_colab_notebook_is_stored_without_outputs():
    nbformat.validate(COLAB)
    cells = [cell for cell in COLAB.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_colab_notebook_goes_from_a_zip_file_to_a_litert_model(tmp_path):
    write_colors(tmp_path / "photos", 12)
    shutil.make_archive(tmp_path / "photos", "zip", tmp_path / "photos")
    notebook = copy.deepcopy(COLAB)
    (given,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    options = "--model simple --image_size 8 --batch_size 8 --train_epochs 2 --bootstrap_samples 20"
    places = {"PROJECT": ROOT, "IMAGES": tmp_path / "photos.zip", "DATA": tmp_path / "data"}
    values = {**places, "RUN": tmp_path / "run", "OPTIONS": options}
    assert re.findall(r"^([A-Z]+) = ", given.source, re.M) == ["REPOSITORY", *values]
    given.source = "\n".join(f"{name} = {str(value)!r}" for name, value in values.items())
    nbformat.write(notebook, tmp_path / "colab.ipynb")

    result = NotebookRun(tmp_path / "colab.ipynb", default_timeout=300).execute()

    outputs = [output for cell in result.nb.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert result.error is None, printed[-3000:]
    assert "error:" not in printed
    assert "test accuracy" in printed
    (shown,) = [output.data["text/html"] for output in outputs if "data" in output]
    assert "<iframe" in shown
    assert html.escape((tmp_path / "run" / "report.html").read_text()) in shown
    model = Interpreter(str(tmp_path / "run" / "export" / "model" / "1" / "model.tflite"))
    assert model.get_input_details()[0]["shape"].tolist()[1:] == [8, 8, 3]
