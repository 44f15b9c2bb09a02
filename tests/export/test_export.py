"""An export answers as its snapshot does, or does not exist."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from library import files
from library.dataset.splits import read_splits
from library.errors import SettingsError, UserError
from library.export import export
from library.export.export import export_snapshot
from library.export.formats import FORMATS, check_formats
from library.export.litert_onnx import (
    LiteRTModel,
    OnnxModel,
    make_litert_converter,
    to_probability_network,
    write_onnx,
)
from library.export.quantization_loss import find_loss
from library.export.saved_model import LoadedSavedModel, write_saved_model
from library.export.verification import ExportSamples, compare, read_export_samples
from library.files import find_damage
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.models.scores import MULTI_LABEL
from library.prediction.calibrate import CalibratedSnapshot
from library.prediction.ensemble import combine_snapshots
from library.prediction.neighbor_index import normalize
from library.prediction.predictor import Predictor
from library.prediction.preprocess import ImagePreprocessor
from library.prediction.unknown_score import UnknownDetector
from library.saving.snapshots import Snapshot
from project.inputs import EvaluationPipeline
from tests.conftest import ROOT
from tests.export.test_bytes_to_pixels import encode, smooth
from tests.helpers.networks import PIXELS, make_snapshot

PIPED = {"capture_output": True, "text": True, "check": True}


def preprocess(snapshot, encoded):
    preprocessor = ImagePreprocessor.for_snapshot(snapshot)
    return np.stack([preprocessor.preprocess(each) for each in encoded])


@pytest.fixture(scope="module")
def calibrated():
    return CalibratedSnapshot(make_snapshot(), temperature=1.5)


@pytest.fixture(scope="module")
def samples(calibrated):
    encoded = [encode(smooth(20, 30, seed=number), "JPEG") for number in range(40)]
    pixels = preprocess(calibrated.snapshot, encoded)
    return ExportSamples("validation", encoded, pixels, pixels[:10])


@pytest.fixture(scope="module")
def exported(calibrated, samples, tmp_path_factory):
    """The folder of a SavedModel, and its comparisons; an earlier export was killed."""
    folder = tmp_path_factory.mktemp("exported") / "cats"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **PIPED).stdout
    (folder / f".2.{int(dead)}.{files._HOST}00000000.partial" / "variables").mkdir(parents=True)
    (folder / "1").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(folder.parent))
        patched.setattr("tempfile.tempdir", None)
        return export_snapshot(calibrated, folder, ["saved_model"], samples)


@pytest.mark.slow
def test_export_leaves_nothing_but_a_numbered_folder(exported):
    folder = exported[0].parent
    assert [each.name for each in folder.parent.iterdir()] == ["cats"]
    assert sorted(each.name for each in folder.iterdir()) == ["1", "2"]
    # TensorFlow writes the source of what it traces while it saves.
    assert not list(folder.rglob("*.py"))


@pytest.mark.slow
def test_export_snapshot_writes_saved_model(calibrated, samples, exported):
    snapshot = calibrated.snapshot
    path, comparisons = exported
    assert comparisons["saved_model"].difference <= 1e-5
    assert comparisons["saved_model"].agreement == 1
    assert find_damage(path) is None
    assert json.loads((path / "classes.json").read_text()) == ["cat", "dog", "eel"]
    assert (path / "classes.txt").read_text() == "cat\ndog\neel\n"
    served = LoadedSavedModel(path, snapshot.classes)
    answer = served.signatures["serving_default"](image_bytes=samples.encoded[:2])
    assert (np.diff(answer["probabilities"].numpy()) <= 0).all()
    expected = Predictor([snapshot]).probabilities(samples.pixels[:2])
    assert answer["classes"][0, 0].numpy().decode() == snapshot.classes[expected[0].argmax()]
    assert np.allclose(served.from_bytes(samples.encoded[:2]), expected, atol=1e-6)
    assert np.allclose(served.from_pixels(samples.pixels[:2]), expected, atol=1e-6)
    # So do images that conversion would change.
    others = [encode(smooth(40, 50), kind, progressive=True) for kind in ("PNG", "JPEG")]
    others += [encode(smooth(200, 300), "PNG"), encode(smooth(20, 20, 4), "PNG")]
    expected = Predictor([snapshot]).probabilities(preprocess(snapshot, others))
    assert np.allclose(served.from_bytes(others), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litert", "litert_float16", "litert_int8", "onnx"])
def test_export_snapshot_writes_litert_and_onnx(calibrated, samples, tmp_path, capfd, name):
    path, comparisons = export_snapshot(calibrated, tmp_path, [name], samples)
    file = FORMATS[name].file
    assert {each.name for each in path.iterdir()} == {
        *(file, "README.md", "classes.txt", "classes.json", "hashes.json")
    }
    assert comparisons[name].agreement >= 0.98
    assert comparisons[name].difference <= {"litert": 1e-4, "onnx": 1e-4}.get(name, 0.05)
    assert f"`{file}`" in (path / "README.md").read_text()
    # The converters' pages of log do not get out.
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_export_snapshot_leaves_nothing_if_probabilities_differ(
    exported, samples, tmp_path, monkeypatch
):
    def write_other(folder, *_, **__):
        shutil.copytree(exported[0], folder, dirs_exist_ok=True)

    other = CalibratedSnapshot(make_snapshot(seed=5))
    monkeypatch.setattr(export, "write_saved_model", write_other)
    with pytest.raises(UserError, match=r"saved_model .*0\.\d+.*1e-05"):
        export_snapshot(other, tmp_path / "out", ["saved_model"], samples)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_export_snapshot_shows_one_line_of_a_converters_error(
    calibrated, samples, tmp_path, monkeypatch
):
    def fail(*_):
        print("pages of log")
        raise ValueError("\n op Foo is unknown\n at …")

    monkeypatch.setattr(export, "write_onnx", fail)
    with pytest.raises(UserError, match=r"onnx .*: op Foo is unknown$"):
        export_snapshot(calibrated, tmp_path / "out", ["onnx"], samples)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_export_snapshot_of_a_hub_network_with_embeddings(tmp_path):
    from library.models.hub_layer import HubLayer
    from tests.helpers.hub_modules import save_module

    save_module(tmp_path / "module")
    pixels = keras.Input((8, 8, 3))
    features = HubLayer(tmp_path / "module")(keras.layers.Rescaling(1 / 255)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(features))
    snapshot = Snapshot(network, ("a", "b"), {}, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    encoded = [encode(each, "JPEG") for each in images]
    stacked = preprocess(snapshot, encoded)
    path, comparisons = export_snapshot(
        CalibratedSnapshot(snapshot),
        tmp_path / "out",
        ["saved_model"],
        ExportSamples("test", encoded, stacked, stacked),
        embedding=True,
    )
    assert comparisons["saved_model"].difference <= 1e-5
    assert "`embedding`" in (path / "README.md").read_text()
    answer = tf.saved_model.load(path).signatures["serving_default"](image_bytes=encoded)
    expected = keras.Model(pixels, features)(stacked.astype(np.float32))
    assert np.allclose(answer["embedding"], expected, atol=1e-5)


_LOAD = """
import sys, tensorflow as tf
if sys.argv[1] == "onnx":
    sys.argv.pop(1)
    import library.export.litert_onnx, onnxruntime
print("loading", file=sys.stderr, flush=True)
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
for path in sys.argv[2:]:
    serve(image_bytes=tf.constant([open(path, "rb").read()]))
"""


@pytest.mark.slow
def test_loaded_saved_model_logs_nothing_and_onnx_runtime_sends_no_telemetry(exported, tmp_path):
    paths, own = [], tmp_path / "own"
    own.mkdir()
    for number, kind in enumerate(("JPEG", "PNG")):
        paths.append(tmp_path / f"image.{number}")
        paths[-1].write_bytes(encode(smooth(40, 50), kind))
    onnx = ["onnx"] if importlib.util.find_spec("onnxruntime") else []
    command = [sys.executable, "-c", _LOAD, *onnx, exported[0], *paths]
    # No GPU, whose driver logs an error where there is none.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "1"}
    environment["TMPDIR"] = str(own)
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(command, env=environment, cwd=ROOT, **PIPED)
    after_import = done.stderr[done.stderr.index("loading") :].splitlines()[1:]
    assert [line for line in after_import if "cuInit" not in line] == []
    # It would leave a file there.
    assert not list(own.iterdir())


@pytest.mark.slow
def test_saved_model_of_an_ensemble_with_views_temperatures_and_embeddings(tmp_path):
    members = [make_snapshot(0, head=MULTI_LABEL), make_snapshot(1, hidden=4, head=MULTI_LABEL)]
    snapshot = combine_snapshots(members, [2.0, 0.5], views=3)
    write_saved_model(tmp_path, snapshot, embedding=True)
    predictor = Predictor([snapshot], embedding=True)
    probabilities, embeddings = predictor.predict(PIXELS)
    served = LoadedSavedModel(tmp_path, snapshot.classes)
    assert np.allclose(served.from_pixels(PIXELS), probabilities, atol=1e-6)
    found = served.signatures["pixels"](pixels=tf.constant(PIXELS))["embedding"]
    assert np.allclose(found, embeddings, atol=1e-6)
    encoded = [encode(each, "PNG") for each in PIXELS]
    found = served.signatures["serving_default"](image_bytes=tf.constant(encoded))["embedding"]
    assert np.allclose(found, predictor.predict(preprocess(snapshot, encoded))[1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("score", "head"), [("neighbors", "scores"), ("energy", MULTI_LABEL)])
def test_exports_call_the_same_images_unknown_as_the_snapshot(samples, tmp_path, score, head):
    members = [make_snapshot(0, head=head, hidden=6), make_snapshot(1, head=head, hidden=4)]
    # ONNX can't hold the mean of sigmoids.
    members = members if head == "scores" else members[:1]
    snapshot = combine_snapshots([combine_snapshots(members)], [2.0])
    bank = np.random.default_rng(0).uniform(size=(20, 10)).astype(np.float32)
    detector = UnknownDetector(score, bank=normalize(bank), temperature=2.0)
    scores = Predictor([snapshot], detector=detector).run(samples.pixels).unknown_scores
    # Half of the images are unknown.
    detector = replace(detector, threshold=float(np.median(scores)), unit=float(scores.std()))
    calibrated = CalibratedSnapshot(snapshot, 2.0, detector=detector)
    formats = ["saved_model", "litert", "onnx"]
    path, comparisons = export_snapshot(calibrated, tmp_path, formats, samples)
    for name, comparison in comparisons.items():
        assert comparison.agreement == 1
        assert comparison.unknown_difference < 100 * FORMATS[name].tolerance
    served = tf.saved_model.load(path).signatures["serving_default"]
    answer = served(image_bytes=tf.constant(samples.encoded))
    assert np.array_equal(answer["is_unknown"], scores > detector.threshold)
    expected = (scores - detector.threshold) / detector.unit
    assert np.allclose(answer["unknown_score"], expected, atol=1e-3)
    assert "embedding" not in answer
    assert "`unknown_score`" in (path / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["constants", "GELU", "groups"])
def test_onnx_of_what_tf2onnx_cannot_convert_alone(tmp_path, kind):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(mean=[99.0, 127.0, 150.0], variance=[999.0] * 3)(pixels)
    if kind != "constants":
        x = keras.layers.Rescaling(1 / 255)(pixels)
    options = {"GELU": {"activation": "gelu"}, "groups": {"groups": 3}}.get(kind, {})
    x = keras.layers.Conv2D(6, 3, **options)(x)
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    network = to_probability_network(keras.Model(pixels, scores))
    write_onnx(network, tmp_path / "model.onnx")
    found = OnnxModel(tmp_path / "model.onnx").from_pixels(PIXELS)
    assert np.allclose(found, network(PIXELS.astype(np.float32)), atol=1e-5)


@pytest.mark.slow
def test_onnx_names_the_operations_that_it_lacks(tmp_path):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    scores = keras.layers.Dense(3)(keras.layers.Lambda(tf.math.lgamma)(x + 1))
    with pytest.raises(ValueError, match=r"Lgamma$"):
        write_onnx(to_probability_network(keras.Model(pixels, scores)), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_litert_int8_takes_integers_and_is_smaller(tmp_path, capfd):
    snapshot = make_snapshot()
    sizes = {}
    for precision in ("float32", "int8"):
        network = to_probability_network(snapshot.network)
        content = make_litert_converter(network, precision, PIXELS).convert()
        (tmp_path / precision).write_bytes(content)
        sizes[precision] = len(content)
    capfd.readouterr()
    model = LiteRTModel(tmp_path / "int8")
    assert model.input["dtype"] == np.uint8
    found, expected = model.from_pixels(PIXELS), Predictor([snapshot]).probabilities(PIXELS)
    assert np.abs(found - expected).max() < 0.05
    assert model.from_pixels(PIXELS[:1]).shape == (1, 3)
    assert sizes["int8"] < sizes["float32"]


def make_network_that_integers_cannot_hold():
    """Return a network with one layer, `huge`, one channel of which has a very large bias."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="first")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.Conv2D(6, 3, activation="relu", bias_initializer="ones", name="huge")(x)
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="third")(x)
    scores = keras.layers.Dense(3, name="scores")(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(pixels, scores)
    huge, third = network.get_layer("huge"), network.get_layer("third")
    huge.bias.assign([1e5, *[1] * 5])
    # The next layer ignores that channel: float32 loses nothing.
    third.kernel.assign(third.kernel * np.float32([0, *[1] * 5])[:, None])
    network.get_layer("scores").kernel.assign(network.get_layer("scores").kernel * 99)
    return network


def test_find_loss_is_the_share_of_the_variance():
    # Channels of the variances 1, 1 and 0; the second loses all of its variance, and more.
    assert find_loss(np.array([[0.0, 3, 2], [1, 10, 4], [0.25, 5, 5]])) == 0.625
    assert find_loss(np.array([[2.0], [4], [1]])) == 0


@pytest.mark.slow
def test_refused_int8_export_names_the_layers_that_lose_most(tmp_path):
    snapshot = Snapshot(make_network_that_integers_cannot_hold(), ("a", "b", "c"), {}, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    # Gray ones too, so that several classes are found.
    images[::2] = images[::2, :1, :1, :1]
    samples = ExportSamples("test", [], images, images)
    with pytest.raises(UserError, match=r"litert_int8 .*98%; .*: huge \(\d\d[\d.]+%\), \w+ \("):
        export_snapshot(CalibratedSnapshot(snapshot), tmp_path / "out", ["litert_int8"], samples)
    assert list((tmp_path / "out").iterdir()) == []


def with_wrong_classes(probabilities, count):
    wrong = probabilities.copy()
    wrong[:count] = np.roll(wrong[:count], 1, axis=1)
    return wrong


def test_compare_refuses_other_classes_and_nan():
    expected = np.eye(3, dtype=np.float32)[np.arange(100) % 3]
    assert compare("litert_int8", expected * 0.7, expected).agreement == 1
    assert compare("litert_int8", with_wrong_classes(expected, 2), expected).agreement == 0.98
    with pytest.raises(UserError, match=r"97\.0%.*98%"):
        compare("litert_int8", with_wrong_classes(expected, 3), expected)
    for name in ("litert_int8", "onnx"):
        with pytest.raises(UserError, match=name):
            compare(name, expected * np.nan, expected)


def test_compare_refuses_other_unknown_images():
    expected = np.tile(np.float32([0.9, 0.1, -0.5]), (100, 1))
    found = expected + np.float32([0, 0, 2e-4])
    comparison = compare("saved_model", found, expected, has_unknown_score=True)
    assert comparison.unknown_difference == pytest.approx(2e-4, rel=1e-2)
    assert comparison.difference == 0
    with pytest.raises(UserError, match=r"unknown scores.*0\.5"):
        compare("saved_model", found + np.float32([0, 0, 0.5]), expected, has_unknown_score=True)
    found[:3, 2] = 0.1
    with pytest.raises(UserError, match=r"97\.0%"):
        compare("litert_int8", found, expected, has_unknown_score=True)


def test_compare_needs_the_same_set_of_classes_if_multi_label():
    expected = np.tile(np.float32([0.9, 0.45, 0.45]), (100, 1))
    found = expected + np.float32([0, 0.03, 0])
    assert compare("litert_int8", found, expected, multi_label=True).agreement == 1
    found[:3, 1] = 0.55
    assert compare("litert_int8", found, expected).agreement == 1
    with pytest.raises(UserError, match=r"97\.0%"):
        compare("litert_int8", found, expected, multi_label=True)


def test_check_formats_refuses_unknown_ones_and_missing_packages(monkeypatch):
    check_formats(list(FORMATS))
    with pytest.raises(SettingsError, match=r"'onx'.*saved_model"):
        check_formats(["onx"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_formats(["saved_model"])
    with pytest.raises(SettingsError, match=r"ai_edge_litert.*\[litert\]"):
        check_formats(["litert_int8"])


def test_check_formats_allows_embeddings_for_saved_models_only():
    check_formats(["saved_model"], embedding=True)
    with pytest.raises(SettingsError, match=r"onnx.*saved_model.*--no_embedding"):
        check_formats(["saved_model", "onnx"], embedding=True)


def test_read_export_samples_has_bytes_and_pixels_of_the_same_images(colors):
    image_format = ImageFormat(8, 3)
    test, train = (
        EvaluationPipeline(make_source(each), image_format, batch_size=16)
        for each in read_splits(colors, "test", "train")
    )
    samples = read_export_samples("test", test.source, test, train)
    assert (len(samples.encoded), len(samples.pixels), len(samples.calibration)) == (18, 18, 60)
    assert read_export_samples("test", test.source, test, None).calibration is None
    preprocessor = ImagePreprocessor(image_format)
    for encoded, pixels in zip(samples.encoded, samples.pixels, strict=True):
        assert np.array_equal(preprocessor.preprocess(encoded), pixels)
