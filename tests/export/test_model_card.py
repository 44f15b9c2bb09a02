import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.export.formats import FORMATS
from library.export.model_card import make_model_card
from library.export.verification import Comparison, ExportSamples
from library.inputs.aspect_ratio import CROP, PAD, Fit
from library.inputs.decoding import ImageFormat
from library.models.scores import MULTI_LABEL
from library.prediction.calibrate import CalibratedSnapshot
from library.prediction.ensemble import combine_snapshots
from library.prediction.preprocess import ImagePreprocessor
from tests.helpers.networks import PIXELS, make_snapshot

SAMPLES = ExportSamples("validation", [], PIXELS, PIXELS)
FITS = [Fit(), Fit(CROP, 0.75), Fit(PAD, background=(1, 2, 3))]
COMPARISON = Comparison(difference=2.5e-7, agreement=0.9995)


def card_of(snapshot, *formats, path=Path("export/1"), temperature=None, embedding=False):
    return make_model_card(
        CalibratedSnapshot(snapshot, temperature),
        path,
        dict.fromkeys(formats or ("saved_model",), COMPARISON),
        SAMPLES,
        embedding=embedding,
    )


def evaluated_snapshot(folder, accuracy, seed=0):
    counts = {"cat": 10, "dog": 10, "eel": len(folder)}
    return replace(
        make_snapshot(seed),
        metrics={"epoch": 7, "step": 70, "validation": {"accuracy": accuracy}},
        folder=Path(folder),
        data={"examples": 20, "class_counts": counts, "fingerprint": folder * 16},
    )


def test_model_card_of_a_snapshot_has_all_facts():
    snapshot = replace(
        make_snapshot(),
        metrics={"epoch": 7, "step": 70, "validation": {"loss": 0.25, "accuracy": 0.9375}},
        data={
            "examples": 1200,
            "class_counts": {"cat": 1000, "do|g": 150, "eel": 50},
            "fingerprint": "0123456789abcdef0123",
            "images": {"max_edge": 96},
        },
    )
    card = card_of(snapshot, *FORMATS, path=Path("out/export/pets/3"), temperature=1.25)
    assert card.startswith("# pets, version 3\n")
    for fact in (
        "3 classes: cat, dog, eel.",
        "epoch 7 (step 70)",
        "579 parameters",
        "License: not stated",
        "| saved_model | 2.5e-07 | 100.0",
        "5 images of the validation split",
        ": loss 0.2500, accuracy 0.9375.",
        "1,200 training images (fingerprint `0123456789abcdef`)",
        "| cat | 1,000 |\n",
        "| do\\|g | 150 |\n",
        "96 pixels per edge",
        "8 x 8 pixels, 3 channels",
        "temperature 1.2500",
        "localhost:8501/v1/models/pets:predict",
        "- `model_int8.tflite`: LiteRT",
        "(uint8, (n, 8, 8, 3))",
        "- `model.onnx`: ONNX",
    ):
        assert fact in card, fact
    assert "\n\n\n" not in card
    assert "embedding" not in card


def test_model_card_of_an_ensemble_has_the_metrics_of_its_members():
    first, second = evaluated_snapshot("a", 0.5), evaluated_snapshot("b", 0.75, seed=1)
    combined = combine_snapshots([combine_snapshots([first, second], views=2)], [1.25])
    assert combined.metrics == {}
    card = card_of(combined, temperature=1.25)
    for fact in (
        "2 networks",
        f"- `a`: the snapshot of epoch 7 (step 70) of the network `{first.network.name}`\n",
        f"- `b`: the snapshot of epoch 7 (step 70) of the network `{second.network.name}`\n",
        "2 views",
        "(several networks, test-time augmentation, a temperature)",
        "- `a`: accuracy 0.5000\n- `b`: accuracy 0.7500\n",
        f"`a`: 20 training images (fingerprint `{'a' * 16}`)",
        f"`b`: 20 training images (fingerprint `{'b' * 16}`)",
    ):
        assert fact in card, fact
    assert "\n\n\n" not in card
    # Members that learned from the same images: these are described once.
    assert card_of(combine_snapshots([first, first])).count("20 training images") == 1


def test_model_card_of_a_temperature_alone():
    snapshot = evaluated_snapshot("a", 0.5)
    card = card_of(combine_snapshots([snapshot], [1.25]), temperature=1.25)
    assert f"the snapshot of epoch 7 (step 70) of the network `{snapshot.network.name}`" in card
    assert "(a temperature)" in card
    assert "views" not in card


def test_model_card_of_a_multi_label_network_has_the_threshold():
    card = card_of(make_snapshot(head=MULTI_LABEL))
    assert "0.5 or more" in card
    assert "| same classes |" in card


def test_model_card_of_an_older_snapshot_has_no_data():
    card = card_of(make_snapshot(), "onnx")
    assert "not evaluated" in card
    assert "no record" in card
    for word in ("tensorflow/serving", "temperature", "embedding"):
        assert word not in card


@pytest.mark.parametrize("fit", FITS, ids=str)
def test_model_card_shows_how_to_prepare_pixels(tmp_path, monkeypatch, fit):
    data = {"fit": fit.to_json(), "images": {"background": [1, 2, 3]}}
    card = card_of(replace(make_snapshot(), data=data), "onnx")
    (code,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    y, x = np.mgrid[:40, :90]
    image = Image.fromarray((3 * y + x).astype(np.uint8)).convert("RGB")
    image.save(tmp_path / "image.jpg", quality=98)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    content = (tmp_path / "image.jpg").read_bytes()
    expected = ImagePreprocessor(ImageFormat(8, 3, fit=fit)).preprocess(content).astype(int)
    assert names["pixels"].shape == (1, 8, 8, 3)
    assert np.abs(names["pixels"][0] - expected).max() <= 12


def test_model_card_with_embeddings_describes_them():
    assert "`embedding`" in card_of(make_snapshot(), embedding=True)


def test_model_card_lists_the_first_classes_only():
    names = tuple(f"class {number}" for number in range(1000))
    data = {"examples": 1000, "class_counts": dict.fromkeys(names, 1), "fingerprint": None}
    card = card_of(replace(make_snapshot(), classes=names, data=data))
    assert "980 more" in card
    assert "class 500" not in card


@pytest.mark.parametrize("name", FORMATS)
def test_model_card_explains_each_format(name):
    files = [each.file for each in FORMATS.values()]
    card = card_of(make_snapshot(), name)
    assert [f"`{file}`" in card for file in files] == [file == FORMATS[name].file for file in files]


def write_test_json(run_dir, **changes):
    summary = {
        "snapshot_sha256": "5" * 64,
        "images": 40,
        "images_in_split": 40,
        "top_k": 5,
        "accuracy": 0.9,
        "loss": 0.5,
        "macro_f1": None,
        "intervals": {"accuracy": [0.77, 0.96]},
        **changes,
    }
    (run_dir / "evaluation").mkdir(parents=True, exist_ok=True)
    (run_dir / "evaluation" / "test.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_model_card_has_the_test_figures_of_this_very_snapshot(tmp_path, temperature):
    snapshot = replace(evaluated_snapshot("aaaa", 0.9), sha256="5" * 64, folder=tmp_path / "best")
    shown = combine_snapshots([snapshot], [temperature]) if temperature else snapshot
    write_test_json(tmp_path)
    card = card_of(shown, temperature=temperature)
    assert "40 images" in card
    assert "| accuracy | 0.9000 | 0.7700 to 0.9600 |\n| macro F1 | - |  |\n" in card
    # An export of a snapshot that lies elsewhere.
    elsewhere = replace(snapshot, folder=tmp_path / "other" / "best")
    assert "| accuracy |" in card_of(elsewhere, path=tmp_path / "export" / "model" / "1")
    for changes in ({"snapshot_sha256": "6" * 64}, {"images": 30}, {"intervals": None}):
        write_test_json(tmp_path, **changes)
        card = card_of(snapshot)
        assert "| accuracy |" not in card
        assert "`python run.py evaluate`" in card
