"""Corruptions, against Pillow, SciPy and their formulas, and the accuracy under them."""

import colorsys
import csv
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from library.dataset.splits import read_splits
from library.evaluation.predictions import predict_batches
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.models.scores import MULTI_LABEL
from library.robustness.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    corrupt,
    draw_corruptions,
    format_corruptions,
    measure_corruptions,
    write_corruptions,
)
from library.saving.snapshots import Snapshot
from project.inputs import EvaluationPipeline

RANDOM = np.random.default_rng(0)


def photo(edge=96, channels=3):
    """A smooth image with a black, a white and a gray area."""
    ramps = (
        np.indices((edge, edge + 8)).sum(0)[..., np.newaxis] * np.array([1, 0.5, 0.2])[:channels]
    )
    pixels = ramps % 256
    pixels[:4], pixels[4:8], pixels[8:12] = 0, 255, 128
    return pixels.astype(np.uint8)


def levels(name, edge):
    return CORRUPTIONS[name].levels(edge)


def test_parameters_depend_on_the_size():
    assert levels("jpeg", 224) == levels("jpeg", 85) == [25, 18, 15, 10, 7]
    assert levels("jpeg", 84) == levels("jpeg", 28) == [80, 65, 58, 50, 40]
    assert levels("gaussian_blur", 448) == [2, 4, 6, 8, 12]
    assert levels("gaussian_blur", 16) == pytest.approx([0.2, 0.3, 0.35, 0.4, 0.5])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("edge", [32, 96])
def test_corruptions_match_their_definitions(edge, channels):
    pixels = photo(edge, channels)
    for strength in range(1, STRENGTHS + 1):
        n = strength - 1
        for name in CORRUPTIONS:
            found = corrupt(pixels, name, strength)
            assert found.dtype == np.uint8
            assert found.shape == pixels.shape
        level = levels("contrast", edge)[n]
        for channel in range(channels):
            own = pixels[..., channel].astype(float)
            expected = own.mean() + level * (own - own.mean())
            found = corrupt(pixels, "contrast", strength)[..., channel]
            assert np.abs(found - expected).max() <= 0.51
        sigma = levels("gaussian_blur", edge)[n]
        expected = ndimage.gaussian_filter(
            pixels.astype(float), (sigma, sigma, 0), mode="nearest", truncate=4
        )
        assert np.abs(corrupt(pixels, "gaussian_blur", strength) - expected).max() < 1
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(
            file, "jpeg", quality=levels("jpeg", edge)[n]
        )
        expected = np.asarray(Image.open(file)).reshape(pixels.shape)
        assert np.array_equal(corrupt(pixels, "jpeg", strength), expected)


def test_brightness_raises_the_value_of_hsv():
    pixels = photo(edge=32)[::3, ::3]
    level = levels("brightness", 11)[2]
    expected = []
    for red, green, blue in (pixels / 255).reshape(-1, 3):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        expected.append(colorsys.hsv_to_rgb(hue, saturation, min(value + level, 1)))
    found = corrupt(pixels, "brightness", 3).reshape(-1, 3)
    assert np.abs(found - 255 * np.array(expected)).max() <= 0.51
    gray = corrupt(photo(32, 1), "brightness", 3)
    assert (gray == np.minimum(photo(32, 1) + np.rint(255 * level), 255)).all()


def test_noise_has_its_deviation_and_is_a_function_of_the_seed():
    pixels = np.full((200, 200, 3), 128, np.uint8)
    found = [corrupt(pixels, "gaussian_noise", n, (3, 4)).astype(float) - 128 for n in (1, 2)]
    assert found[0].std() == pytest.approx(255 * 0.08, rel=0.02)
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.99
    again = corrupt(pixels, "gaussian_noise", 1, (3, 4)) - 128.0
    assert np.array_equal(found[0], again)
    assert not np.array_equal(found[0], corrupt(pixels, "gaussian_noise", 1, (3, 5)) - 128.0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_accuracy_is_that_of_the_network_on_corrupted_images(colors, patches, multi_label):
    (split,) = read_splits(patches if multi_label else colors, "test")
    shape, count = (8, 8, 1 if multi_label else 3), len(split.classes)
    keras.utils.set_random_seed(0)
    pixels = keras.Input(shape)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    name = MULTI_LABEL if multi_label else "scores"
    network = keras.Model(pixels, keras.layers.Dense(count, name=name)(flat))
    snapshot = Snapshot(network, split.classes, {}, Path("best"))
    found = []
    for batch_size in (5, 64):
        format = ImageFormat(8, shape[2])
        inputs = EvaluationPipeline(make_source(split), format, batch_size)
        predictions = predict_batches(network, inputs.named_batches(), 64 // batch_size)
        found.append(measure_corruptions(snapshot, inputs, predictions, seed=3))
    assert found[0] == found[1], "whatever the batch size"
    ((images, labels, _),) = inputs.named_batches()
    accuracies = {}
    for kind, each in found[0]["corruptions"].items():
        for strength in range(1, STRENGTHS + 1):
            changed = [
                corrupt(image, kind, strength, (3, n)) for n, image in enumerate(images.numpy())
            ]
            scores = network(np.float32(changed)).numpy()
            right = scores.argmax(1) == labels
            if multi_label:
                right = ((scores > 0) == (labels.numpy() > 0.5)).all(1)
            accuracies[kind, strength] = np.mean(right)
            low, high = each["intervals"][strength - 1]
            assert low <= each["accuracy"][strength - 1] == np.mean(right) <= high
    error = 1 - np.mean([*accuracies.values()])
    assert found[0]["mean_corruption_error"] == pytest.approx(error)
    clean = predictions.correct.mean()
    assert found[0]["clean_accuracy"] == clean
    assert found[0]["error_increase"] == pytest.approx(error - (1 - clean))
    assert found[0]["error_ratio"] == pytest.approx(error / (1 - clean))
    assert len({*accuracies.values()}) > 3, "the network notices"


def test_table_and_figure(tmp_path):
    one = {"parameters": [1] * 5, "accuracy": [0.5] * 5, "intervals": [(0.25, 0.75)] * 5}
    found = {
        "clean_accuracy": 1.0,
        "clean_interval": (0.5, 1.0),
        "corruptions": {name: {**one, "error": 0.5} for name in CORRUPTIONS},
        "clean_error": 0.0,
        "mean_corruption_error": 0.5,
        "error_ratio": None,
    }
    write_corruptions(tmp_path / "a.csv", tmp_path / "a.svg", found)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 1 + 5 * STRENGTHS
    assert rows[0]["corruption"] == "none"
    assert [rows[1][each] for each in ("strength", "accuracy", "low")] == ["1", "0.5", "0.25"]
    assert (tmp_path / "a.svg").read_bytes() == draw_corruptions(found)
    assert b"Gaussian noise" in draw_corruptions(found)
    lines = [*format_corruptions(found)]
    assert lines[1].split() == ["Gaussian", "noise", *["0.5000"] * 6]
    assert "0.5000, without corruption 0.0000" in lines[-1]
