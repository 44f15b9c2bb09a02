"""Backbones of keras-hub: as keras-hub computes them, at any size, and as exact as any network."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import run
from library.errors import CheckpointError, SettingsError, UserError
from library.explaining.explanation import InputImage, explain_images
from library.explaining.grad_cam import GRAD_CAM, OCCLUSION
from library.export.litert_onnx import (
    LiteRTModel,
    OnnxModel,
    make_litert_converter,
    to_probability_network,
    write_onnx,
)
from library.export.saved_model import LoadedSavedModel, write_saved_model
from library.models.blocks import list_blocks
from library.models.features import split_at_base
from library.models.functional import allow_image_size
from library.models.presets import interpolate_positions, load_backbone, read_preset
from library.saving.snapshots import Snapshot, load_network, read_snapshot, write_snapshot
from project.networks import make_network
from tests.helpers.small_networks import build

# It imports keras-hub, which brings packages whose own code warns.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FAMILY_NAMES = ("resnet", "mobilenet", "vit", "dinov2")
CLASSES = ("cat", "dog", "eel")
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Return the path of a family's preset, with a README that names a license."""
    from tests.helpers.keras_hub_presets import write_preset

    folder, paths = tmp_path_factory.mktemp("presets"), {}

    def path_of(family):
        if family not in paths:
            paths[family] = write_preset(family, folder)
            Path(paths[family], "README.md").write_text(
                "---\nlicense: apache-2.0\n---\n# R\n", encoding="utf-8"
            )
        return paths[family]

    return path_of


@pytest.fixture(scope="module")
def networks(presets):
    """Return a family's network: frozen, or fine-tuned by a large step."""
    made = {}

    def network_of(family, fine_tuning=False):
        if (family, fine_tuning) not in made:
            keras.utils.set_random_seed(0)
            network = build(
                "preset", (16, 16, 3), 3, preset=presets(family), fine_tuning=fine_tuning
            )
            if fine_tuning:
                take_step(network)
            made[family, fine_tuning] = network
        return made[family, fine_tuning]

    return network_of


def take_step(network):
    """Change all trainable weights, and the statistics of normalizations."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(network(PIXELS, training=True)[:, 0])
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(each is not None for each in gradients)
    keras.optimizers.SGD(0.5).apply(gradients, network.trainable_variables)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_features_are_those_of_keras_hub(presets, networks, family):
    import keras_hub

    backbone = keras_hub.models.Backbone.from_preset(presets(family))
    converter = keras_hub.layers.ImageConverter.from_preset(presets(family))
    images = converter(PIXELS)
    outputs = backbone({"images": images} if family == "dinov2" else images).numpy()
    if family in ("vit", "dinov2"):
        first = {"vit": 1, "dinov2": 3}[family]
        expected = np.concatenate([outputs[:, 0], outputs[:, first:].mean(1)], 1)
    else:
        expected = outputs.mean((1, 2))
    network = networks(family)
    base, head = split_at_base(network)
    assert np.allclose(base(PIXELS), expected, atol=1e-5)
    assert np.allclose(head(expected), network(PIXELS), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("resnet", ["conv1_conv", "stack0_block0_1_conv", "stack1_block0_1_conv"]),
        ("mobilenet", ["input_conv", "block_0_0/block_0_0_conv1", "block_1_0/block_1_0_conv1"]),
        (
            "vit",
            ["vit_patching_and_embedding", *(f"vit_encoder/transformer_block_{n}" for n in (1, 2))],
        ),
        ("dinov2", ["base_embeddings", *(f"base_encoder/layers_{n}" for n in (0, 1))]),
    ],
)
def test_blocks_are_those_of_the_backbone(networks, family, blocks):
    found = [block[0].name for block in list_blocks(networks(family, fine_tuning=True))]
    assert found[: len(blocks)] == [f"base/{each}" for each in blocks]
    assert found[-1] == "scores"


def test_interpolation_keeps_other_tokens_and_follows_a_slope():
    rows, columns = np.mgrid[:8, :10]
    grid = np.stack([rows, columns], -1).reshape(1, 80, 2).astype(np.float32)
    values = np.concatenate([np.full((1, 1, 2), 9, np.float32), grid], 1)
    larger = interpolate_positions(values, (8, 10), (16, 20))
    assert larger.shape == (1, 321, 2)
    assert (larger[:, 0] == 9).all()
    # At the edges, bicubic interpolation has fewer positions to go by.
    inner = larger[0, 1:].reshape(16, 20, 2)[4:-4, 4:-4]
    # Half-pixel centers: each new position is a quarter before or after an old one.
    assert np.allclose(inner[..., 0], np.arange(4, 12)[:, None] / 2 - 0.25, atol=1e-3)
    assert np.allclose(inner[..., 1], np.arange(4, 16) / 2 - 0.25, atol=1e-3)
    again = interpolate_positions(values, (8, 10), (8, 10))
    assert np.allclose(again, values, atol=1e-6)


def test_dinov2_of_another_size_is_keras_hubs_own(presets):
    import keras_hub

    ours = load_backbone(read_preset(presets("dinov2")), (20, 20))
    theirs = keras_hub.models.Backbone.from_preset(presets("dinov2"), image_shape=(20, 20, 3))
    images = np.random.default_rng(2).normal(size=(2, 20, 20, 3))
    assert np.array_equal(ours({"images": images}), theirs({"images": images}))


def test_vit_of_another_size_has_interpolated_positions(presets):
    old, new = (load_backbone(read_preset(presets("vit")), size) for size in ((16, 16), (16, 24)))
    changed = [
        (before, after)
        for before, after in zip(old.weights, new.weights, strict=True)
        if before.shape != after.shape
    ]
    ((before, after),) = changed
    assert np.allclose(after, interpolate_positions(np.asarray(before), (4, 4), (4, 6)))
    assert new.output_shape == (None, 1 + 24, 8)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("fine_tuning", [False, True], ids=["frozen", "fine_tuned"])
def test_snapshot_gives_the_same_without_the_preset(networks, tmp_path, family, fine_tuning):
    network = networks(family, fine_tuning)
    write_snapshot(tmp_path / "best", network, CLASSES, {}, {})
    found = read_snapshot(tmp_path / "best").network
    assert np.array_equal(found(PIXELS), network(PIXELS))


def test_keras_hub_forgets_positions(networks, tmp_path):
    """Without this, `keep_positions` is not needed any more."""
    network = networks("dinov2", fine_tuning=True)
    positions = network.get_layer("base").embeddings.interpolated_position_embeddings
    before = np.asarray(positions)
    positions.assign_add(np.random.default_rng(0).uniform(0, 2, before.shape))
    expected = network(PIXELS)
    network.save(tmp_path / "model.keras")
    assert not np.allclose(keras.models.load_model(tmp_path / "model.keras")(PIXELS), expected)
    positions.assign(before)


def test_snapshot_without_keras_hub_names_the_extra(networks, tmp_path, monkeypatch):
    write_snapshot(tmp_path / "best", networks("vit"), CLASSES, {}, {})
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(CheckpointError, match=r"keras_hub.*\[presets\]"):
        read_snapshot(tmp_path / "best")


def test_keras_file_may_have_no_other_class_of_keras_hub(networks, tmp_path):
    path = tmp_path / "model.keras"
    networks("vit").save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    hostile = files["config.json"].replace(b"ViTBackbone", b"BertTokenizer")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "config.json": hostile}.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="BertTokenizer"):
        load_network(path)


@pytest.mark.parametrize(
    ("family", "layer", "method", "cells"),
    [
        ("resnet", None, GRAD_CAM, 2),
        ("mobilenet", None, GRAD_CAM, 2),
        ("vit", None, OCCLUSION, 8),
        ("dinov2", None, OCCLUSION, 8),
        ("dinov2", "patches", GRAD_CAM, 4),
    ],
)
def test_heatmap_by_the_method_that_fits(networks, family, layer, method, cells):
    image = InputImage("a", PIXELS[0].astype(np.uint8))
    found = explain_images(networks(family), CLASSES, [image], layer=layer)
    assert found.method == method
    (heatmap, *_) = found.images[0].heatmaps.values()
    assert heatmap.shape == (cells, cells)


def test_vit_cannot_train_on_smaller_images_first(networks):
    with pytest.raises(SettingsError, match=r"progressive: .*8 x 8"):
        allow_image_size(networks("vit"), (8, 8, 3))


# Of networks of convolutions, and of attention.
@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenet", "dinov2"])
def test_every_format_holds_the_network(networks, tmp_path, capfd, family):
    network = networks(family, fine_tuning=True)
    probable = to_probability_network(network)
    expected, images = probable(PIXELS).numpy(), PIXELS.astype(np.uint8)
    write_saved_model(tmp_path, Snapshot(network, CLASSES, {}, tmp_path))
    loaded = LoadedSavedModel(tmp_path, CLASSES)
    assert np.allclose(loaded.from_pixels(images), expected, atol=1e-5)
    write_onnx(probable, tmp_path / "model.onnx")
    assert np.allclose(OnnxModel(tmp_path / "model.onnx").from_pixels(images), expected, atol=1e-4)
    (tmp_path / "model.tflite").write_bytes(make_litert_converter(probable, "float32").convert())
    found = LiteRTModel(tmp_path / "model.tflite").from_pixels(images)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "size", "words"),
    [
        ("bert", (16, 16), "BertBackbone.*image backbone"),
        ("vit", (16, 18), "4 x 4 .*16 x 18.*--image_size 16$"),
        ("dinov2", (16, 20), "square.*--image_size 16"),
    ],
)
def test_refused_preset_or_size(presets, family, size, words):
    with pytest.raises(SettingsError, match=words):
        build("preset", (*size, 3), 2, preset=presets(family))


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        ("dinov2_smal", "'dinov2_small'"),
        ("bert_base_en", "BertBackbone"),
        ("/nowhere/at/all", "unknown preset /nowhere/at/all.*folder"),
        ("kaggle://nobody", "kaggle://user/model/keras/variation"),
    ],
)
def test_unknown_preset_names_what_is_known(handle, words):
    with pytest.raises(SettingsError, match=words):
        read_preset(handle)


def make_gated():
    import httpx2
    from huggingface_hub.errors import GatedRepoError

    answer = httpx2.Response(403, request=httpx2.Request("GET", "https://example.com"))
    return GatedRepoError("403 Client Error: gated", response=answer)


@pytest.mark.parametrize(
    ("make_error", "words"),
    [
        (lambda: ConnectionError("no route"), "no connection.*save_to_preset"),
        (make_gated, "gated.*HF_TOKEN.*KAGGLE_API_TOKEN"),
        (lambda: FileNotFoundError("`a` is not accessible in preset directory"), "gated"),
        (lambda: OSError("disk full"), "disk full"),
    ],
    ids=["unreachable", "gated", "gated_on_kaggle", "other"],
)
def test_failed_download_says_what_to_do(presets, monkeypatch, make_error, words):
    def fail(*_, **__):
        raise make_error()

    preset = read_preset(presets("vit"))
    monkeypatch.setattr(type(preset.loader), "load_backbone", fail)
    with pytest.raises(UserError, match=words) as caught:
        load_backbone(preset, (16, 16))
    assert caught.value.exit_code == 1


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    read_preset.cache_clear()
    with pytest.raises(SettingsError, match=r"keras_hub.*\[presets\]"):
        read_preset("dinov2_small")


def test_preset_as_a_model_is_named(presets):
    for name in ("hf://timm/resnet50.a1_in1k", presets("vit")):
        with pytest.raises(SettingsError, match=f"--model preset --preset {name}"):
            make_network(name, (16, 16, 3), 2, {})


@pytest.mark.slow
def test_training_takes_size_and_license_of_the_preset(options, presets, tmp_path, capsys):
    *words, no_report = options
    given = dict(zip(words[::2], words[1::2], strict=True))
    del given["--image_size"]
    preset = Path(shutil.copytree(presets("vit"), tmp_path / "preset"))
    given |= {"--model": "preset", "--preset": str(preset), "--augmentations": "flip"}

    def train(**changes):
        changed = given | {f"--{name}": str(value) for name, value in changes.items()}
        run.main([no_report, *(f"{name}={value}" for name, value in changed.items())])

    # Fine-tuned in stages, of which the first takes cached features.
    given |= {"--fine_tuning": "true", "--unfreezing": "2=1", "--layer_rate_decay": "0.5"}
    given |= {"--learning_rate_decay_type": "fixed", "--cached_views": "2"}
    train(train_epochs=3)
    assert "view 2 of 2" in capsys.readouterr().err
    best = tmp_path / "run" / "best"
    assert yaml.safe_load((best / "project.yaml").read_text())["default"]["image_size"] == 16
    pretrained = json.loads((best / "data.json").read_text())["pretrained"]
    assert pretrained == {"source": f"keras-hub preset {preset}", "license": "apache-2.0"}
    # Stopped and resumed, it ends with the same weights.
    for epochs in (1, 3):
        train(train_epochs=epochs, run_dir=tmp_path / "again")
    whole, again = (read_snapshot(tmp_path / name / "best").network for name in ("run", "again"))
    assert all(map(np.array_equal, whole.weights, again.weights))
