"""What is exported answers as the snapshot does, or is not there."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.export import exporting
from library.export.exporting import check_formats, compare, export
from library.export.samples import Samples
from library.export.saved_model import ServedModel, write_saved_model
from library.files import find_damage
from library.prediction.predictor import Predictor
from library.prediction.preprocess import Pictures
from tests.export.test_bytes_to_pixels import encode, smooth
from tests.prediction.test_predictor import make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def snapshot():
    return make()


@pytest.fixture(scope="module")
def samples(snapshot):
    encoded = [encode(smooth(20, 30, seed=number), "JPEG") for number in range(40)]
    pixels = np.stack([Pictures.of(snapshot).pixels(each) for each in encoded])
    return Samples("validation", encoded, pixels, pixels[:10])


def test_every_export_has_a_number_of_its_own_and_all_that_it_needs(snapshot, samples, tmp_path):
    for number in ("1", "2"):
        path, compared = export(snapshot, tmp_path / "cats", ["saved_model"], samples, 1.5)
        assert path == tmp_path / "cats" / number
        assert compared["saved_model"]["difference"] <= 1e-5
        assert compared["saved_model"]["agreement"] == 1
    assert find_damage(path) is None
    assert json.loads((path / "classes.json").read_text()) == ["cat", "dog", "eel"]
    assert (path / "classes.txt").read_text() == "cat\ndog\neel\n"
    served = ServedModel(path, snapshot.classes)
    answer = served._signatures["serving_default"](image_bytes=samples.encoded[:2])
    assert (np.diff(answer["probabilities"].numpy()) <= 0).all()
    reference = Predictor([snapshot]).probabilities(samples.pixels[:2])
    assert answer["classes"][0, 0].numpy().decode() == snapshot.classes[reference[0].argmax()]
    assert np.allclose(served.from_bytes(samples.encoded[:2]), reference, atol=1e-6)
    # What conversion would have to change gives the same probabilities, too.
    kinds = ("PNG", "BMP", "GIF", "JPEG")
    others = [encode(smooth(40, 50), kind, progressive=True) for kind in kinds]
    others += [encode(smooth(200, 300), "PNG"), encode(smooth(20, 20, 4), "PNG")]
    pixels = np.stack([Pictures.of(snapshot).pixels(each) for each in others])
    expected = Predictor([snapshot]).probabilities(pixels)
    assert np.allclose(served.from_bytes(others), expected, rtol=0, atol=1e-6)
    assert np.allclose(served.from_pixels(samples.pixels[:2]), reference, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("litert", "model.tflite"),
        ("litert_float16", "model_float16.tflite"),
        ("litert_int8", "model_int8.tflite"),
        ("onnx", "model.onnx"),
    ],
)
def test_the_other_formats_answer_alike(snapshot, samples, tmp_path, capfd, name, file):
    path, compared = export(snapshot, tmp_path, [name], samples)
    assert {each.name for each in path.iterdir()} == {
        *(file, "README.md", "classes.txt", "classes.json", "hashes.json")
    }
    assert compared[name]["agreement"] >= 0.98
    assert compared[name]["difference"] <= {"litert": 1e-4, "onnx": 1e-4}.get(name, 0.05)
    assert f"`{file}`" in (path / "README.md").read_text()
    # The converters' pages of log are kept from both.
    assert capfd.readouterr() == ("", "")


def test_other_probabilities_are_refused_with_the_figure_and_leave_nothing(
    snapshot, samples, tmp_path, monkeypatch
):
    other = make(seed=5)
    monkeypatch.setattr(
        exporting, "write_saved_model", lambda folder, *_, **__: write_saved_model(folder, other)
    )
    with pytest.raises(UserError, match=r"saved_model gives other .* by up to 0\.\d+ where 1e-05"):
        export(snapshot, tmp_path / "out", ["saved_model"], samples)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_converter_finds_wrong_is_one_line(snapshot, samples, tmp_path, monkeypatch):
    def fail(*_):
        print("pages of log")
        raise ValueError("\n op Foo is unknown\n at …")

    monkeypatch.setattr(exporting, "write_onnx", fail)
    with pytest.raises(UserError, match=r"onnx can't hold the network \w+: op Foo is unknown$"):
        export(snapshot, tmp_path / "out", ["onnx"], samples)
    assert list((tmp_path / "out").iterdir()) == []


def test_coarse_numbers_must_agree_on_the_class():
    reference = np.eye(3, dtype=np.float32)[np.arange(100) % 3]
    assert compare("litert_int8", reference * 0.7, reference)["agreement"] == 1
    with pytest.raises(UserError, match=r"for 97.0% of 100 images, where 98% are wanted"):
        compare("litert_int8", _wrong(reference, 3), reference)
    assert compare("litert_int8", _wrong(reference, 2), reference)["agreement"] == 0.98
    with pytest.raises(UserError, match=r"where 0\.0001 is allowed"):
        compare("onnx", reference * np.nan, reference)


def test_where_several_classes_may_be_right_the_sets_must_agree():
    reference = np.tile(np.float32([0.9, 0.45, 0.45]), (100, 1))
    found = reference + np.float32([0, 0.03, 0])
    assert compare("litert_int8", found, reference, multi_label=True)["agreement"] == 1
    found[:3, 1] = 0.55
    assert compare("litert_int8", found, reference)["agreement"] == 1
    with pytest.raises(UserError, match=r"gives the snapshot's classes for 97.0% of 100 images"):
        compare("litert_int8", found, reference, multi_label=True)


def _wrong(reference, count):
    found = reference.copy()
    found[:count] = np.roll(found[:count], 1, axis=1)
    return found


def test_unknown_formats_and_missing_packages_are_one_line_each(monkeypatch):
    check_formats(exporting.FORMATS)
    with pytest.raises(SettingsError, match=r"unknown export format 'onx' \(known: saved_model, "):
        check_formats(["onx"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_formats(["saved_model"])
    with pytest.raises(SettingsError, match=r"ai_edge_litert: pip install '\.\[litert\]'"):
        check_formats(["litert_int8"])


def test_embeddings_are_for_saved_models():
    check_formats(["saved_model"], embedding=True)
    with pytest.raises(SettingsError, match="export_formats onnx gives no embedding, saved_model "):
        check_formats(["saved_model", "onnx"], embedding=True)


@pytest.mark.slow
def test_a_hub_network_is_exported_too(tmp_path):
    from library.models.hub_layer import HubLayer
    from library.saving.snapshots import Snapshot
    from tests.models.test_hub_layer import save_module

    save_module(tmp_path / "module")
    pixels = keras.Input((8, 8, 3))
    features = HubLayer(tmp_path / "module")(keras.layers.Rescaling(1 / 255)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(features))
    snapshot = Snapshot(network, ("a", "b"), {}, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    encoded = [encode(each, "JPEG") for each in images]
    stacked = np.stack([Pictures.of(snapshot).pixels(each) for each in encoded])
    path, compared = export(
        snapshot,
        tmp_path / "out",
        ["saved_model"],
        Samples("test", encoded, stacked, stacked),
        embedding=True,
    )
    assert compared["saved_model"]["difference"] <= 1e-5
    assert "give `embedding`, too" in (path / "README.md").read_text()
    answer = tf.saved_model.load(path).signatures["serving_default"](image_bytes=encoded)
    expected = keras.Model(pixels, features)(stacked.astype(np.float32))
    assert np.allclose(answer["embedding"], expected, atol=1e-5)
