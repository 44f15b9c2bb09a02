import pickle
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.messages import ChoiceError
from library.models.freezing import freeze_layers
from library.models.scores import is_multi_label
from project.hyperparameters import Hyperparameters
from project.networks import NETWORKS, make_network
from project.networks.applications import APPLICATIONS
from project.networks.efficientnet_lite0 import make_base, read_weights
from project.networks.weights.make_efficientnet_lite0 import read_tensors
from tests.helpers.hub_modules import save_call, save_module, save_tf1_module
from tests.helpers.small_networks import build

pytestmark = pytest.mark.slow
# Presets are downloaded; tests/project/test_preset.py makes small ones.
AVAILABLE = sorted(NETWORKS.keys() - {"preset"})

DEFAULTS = {
    **Hyperparameters().model_dump(),
    "residual_layers": 20,
    "application": "MobileNet",
    "application_weights": None,
    "fine_tuning": True,
}


@pytest.fixture
def hyperparameters(tmp_path):
    save_module(tmp_path / "module")
    return {**DEFAULTS, "hub_handle": str(tmp_path / "module")}


def random_pixels(shape, count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, *shape)).astype(np.float32)


def gradients_of(network, pixels):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(network(pixels, training=True) ** 2)
    return tape.gradient(loss, network.trainable_variables)


@pytest.mark.parametrize("name", AVAILABLE)
@pytest.mark.parametrize(
    ("shape", "head", "classes"), [((28, 28, 1), "softmax", 4), ((32, 32, 3), "sigmoid", 2)]
)
def test_network_from_pixels_to_float32_logits(
    name, shape, head, classes, hyperparameters, tmp_path
):
    smallest = {"application": 32, "efficientnet_lite0": 96}.get(name, 0)
    shape = (*(max(smallest, size) for size in shape[:2]), shape[2])
    network = build(name, shape, classes, **{**hyperparameters, "head": head})
    pixels = random_pixels(shape)
    scores = network(pixels)
    assert scores.shape == (2, classes)
    assert scores.dtype == tf.float32
    if head == "sigmoid":
        assert np.array_equal(scores[:, 0], [0, 0])
        assert np.allclose(tf.nn.softmax(scores)[:, 1], tf.sigmoid(scores[:, 1]))
    check_embedding(network, pixels)
    gradients = gradients_of(network, pixels)
    assert gradients
    assert all(np.isfinite(tf.norm(each)) for each in gradients)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.apply(gradients, network.trainable_variables)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert np.array_equal(again(pixels), network(pixels))


@pytest.mark.parametrize(
    ("name", "policy"),
    [*((name, "mixed_float16") for name in AVAILABLE), ("simple", "mixed_bfloat16")],
)
def test_network_under_mixed_precision(name, policy, hyperparameters):
    keras.config.set_dtype_policy(policy)
    try:
        network = make_network(name, (96, 96, 3), 4, hyperparameters)
    finally:
        keras.config.set_dtype_policy("float32")
    pixels = random_pixels((96, 96, 3))
    assert network(pixels).dtype == tf.float32
    assert {each.dtype for each in network.trainable_variables} == {"float32"}
    assert all(each.dtype == tf.float32 for each in gradients_of(network, pixels))


def check_embedding(network, pixels):
    embedding = keras.Model(network.input, network.get_layer("scores").input)
    assert embedding(pixels).shape[0] == len(pixels)
    assert len(embedding.output_shape) == 2


def test_sigmoid_head_for_three_classes_is_refused():
    with pytest.raises(SettingsError, match=r"head sigmoid .*\b3\b"):
        make_network("simple", (8, 8, 3), 3, {**DEFAULTS, "head": "sigmoid"})


def test_multi_label_head():
    network = make_network("simple", (8, 8, 3), 3, {**DEFAULTS, "head": "multi_label"})
    assert is_multi_label(network)
    assert network.get_layer("label_scores").output.shape == (None, 3)
    assert not is_multi_label(make_network("simple", (8, 8, 3), 3, DEFAULTS))


def test_latest_network(hyperparameters):
    assert make_network("latest", (32, 32, 3), 2, hyperparameters).name == list(NETWORKS)[-1]


def test_unknown_network_names_the_nearest():
    with pytest.raises(ChoiceError, match=r"'simpel'.*'simple'"):
        make_network("simpel", (8, 8, 3), 2, DEFAULTS)


def test_simple_reduces_large_images_to_nine_positions():
    network = make_network("simple", (224, 224, 3), 10, DEFAULTS)
    assert network.layers[-1].input.shape[-1] <= 9 * 256
    assert network.count_params() < 2_000_000


# He et al. 2015, table 6: millions of parameters.
@pytest.mark.parametrize(("layers", "millions"), [(20, 0.27), (56, 0.85), (110, 1.73)])
def test_residual_has_the_published_number_of_parameters(layers, millions):
    network = build("residual", (32, 32, 3), 10, residual_layers=layers)
    learned = sum(int(np.prod(each.shape)) for each in network.trainable_variables)
    assert round(learned / 1e6, 2) == millions
    weighty = [each for each in network.layers if hasattr(each, "kernel")]
    assert len(weighty) == layers


def test_residual_has_the_published_shapes():
    network = build("residual", (32, 32, 3), 10, residual_layers=20)
    shapes = [network.get_layer(f"stage{n}_block3_relu").output.shape[1:] for n in (1, 2, 3)]
    assert shapes == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


def test_residual_standardizes_each_image():
    network = build("residual", (8, 8, 3), 2, residual_layers=20)
    pixels = random_pixels((8, 8, 3))
    standard = keras.Model(network.input, network.get_layer("standardization").output)(pixels)
    assert np.allclose(standard, tf.image.per_image_standardization(pixels), atol=1e-4)
    # Twice the light is the same image.
    assert np.allclose(network(pixels), network(pixels / 2), atol=1e-4)


def test_residual_dropout():
    plain = build("residual", (8, 8, 3), 2, residual_layers=20)
    assert not any(isinstance(each, keras.layers.Dropout) for each in plain.layers)
    network = build("residual", (8, 8, 3), 2, residual_layers=20, residual_dropout_rate=0.5)
    (dropout,) = (each for each in network.layers if isinstance(each, keras.layers.Dropout))
    assert dropout.rate == 0.5
    assert network.get_layer("scores").input is dropout.output


def test_simple_width():
    network = build("simple", (64, 64, 3), 3, width=4)
    kernels = [x.filters for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert kernels == [4, 8, 16, 32, 32]


def test_resnet9_has_two_shortcuts_and_halves_the_image_three_times():
    network = build("resnet9", (32, 20, 3), 3, width=4)
    kernels = [x.filters for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert kernels == [4, 8, 8, 8, 16, 32, 32, 32]
    sums = [x.output.shape[1:] for x in network.layers if isinstance(x, keras.layers.Add)]
    assert sums == [(16, 10, 8), (4, 2, 32)]
    assert network.get_layer("scores").input.shape == (None, 32)


def test_resnet9_takes_the_smallest_images():
    assert build("resnet9", (1, 1, 1), 2)(np.zeros((1, 1, 1, 1))).shape == (1, 2)


def test_simple_standardizes_each_image():
    image = np.random.default_rng(0).integers(40, 90, (1, 16, 16, 3)).astype(np.float32)
    network = build("simple", (16, 16, 3), 3, standardize_images=True)
    assert np.allclose(network(image), network(2 * image + 30), atol=1e-3)
    plain = build("simple", (16, 16, 3), 3)
    assert not np.allclose(plain(image), plain(2 * image + 30), atol=1e-3)


@pytest.mark.parametrize("name", ["residual", "simple", "latest"])
def test_standardize_images(name):
    network = make_network(name, (8, 8, 3), 2, {**DEFAULTS, "standardize_images": True})
    pixels = random_pixels((8, 8, 3))
    assert np.allclose(network(pixels), network(pixels / 2), atol=1e-3)


@pytest.mark.parametrize("name", ["application", "hub"])
def test_standardize_images_is_refused(name):
    with pytest.raises(SettingsError, match=rf"standardize_images .*\b{name}\b"):
        make_network(name, (32, 32, 3), 2, {**DEFAULTS, "standardize_images": True})


def test_residual_of_another_depth_is_refused():
    with pytest.raises(SettingsError, match=r"residual_layers .*51"):
        build("residual", (32, 32, 3), 2, residual_layers=51)


@pytest.mark.parametrize("name", ["MobileNetV2", "VGG16"])
@pytest.mark.slow
def test_application_preprocesses_pixels(name, tmp_path):
    function = APPLICATIONS[name]
    network = build("application", (32, 32, 3), 3, application=name, application_weights=None)
    pixels = random_pixels((32, 32, 3))
    prepared = sys.modules[function.__module__].preprocess_input(pixels.copy())
    base = network.get_layer("base")
    by_hand = network.get_layer("scores")(base(prepared, training=False))
    assert np.allclose(network(pixels), by_hand, atol=1e-5)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert np.array_equal(again(pixels), network(pixels))


@pytest.mark.slow
def test_frozen_application_runs_in_inference_mode(tmp_path):
    options = {"application": "EfficientNetB0", "dropout_rate": 0.0}
    base = APPLICATIONS["EfficientNetB0"](
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    base.save_weights(tmp_path / "base.weights.h5")
    network = build(
        "application",
        (32, 32, 3),
        3,
        application_weights=str(tmp_path / "base.weights.h5"),
        **options,
    )
    assert [each.path for each in network.trainable_variables] == ["scores/kernel", "scores/bias"]
    pixels = random_pixels((32, 32, 3))
    by_hand = network.get_layer("scores")(base(pixels, training=False))
    assert np.allclose(network(pixels, training=True), by_hand, atol=1e-5)


@pytest.mark.slow
def test_application_frozen_later_runs_in_inference_mode():
    options = {"application": "EfficientNetB0", "application_weights": None, "dropout_rate": 0.0}
    network = build("application", (32, 32, 3), 3, fine_tuning=True, **options)
    freeze_layers(network, freeze=["base"])
    pixels = random_pixels((32, 32, 3))
    assert np.array_equal(network(pixels, training=True), network(pixels))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"application": "InceptionV3", "application_weights": None}, "at least 75x75"),
        ({"application_weights": "nothing.h5"}, "application_weights .*nothing.h5"),
        ({"application": "mobilenetv2"}, "'mobilenetv2'.*'MobileNetV2'"),
    ],
)
def test_wrong_application_options(options, words):
    with pytest.raises(SettingsError, match=words):
        build("application", (32, 32, 3), 2, **options)


def test_application_weights_of_another_network(tmp_path):
    path = tmp_path / "narrow.weights.h5"
    narrow = APPLICATIONS["MobileNet"](
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    narrow.save_weights(path)
    text = rf"application_weights: {path} .*MobileNet .*checkpoint_path"
    with pytest.raises(SettingsError, match=text) as caught:
        build("application", (32, 32, 3), 2, application="MobileNet", application_weights=str(path))
    assert "\n" not in str(caught.value)


def test_application_weights_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match="MobileNetV2: URL fetch failure"):
        build("application", (224, 224, 3), 2)


LITE = {**DEFAULTS, "fine_tuning": False}


def test_efficientnet_lite0_has_its_published_architecture():
    base = make_base((224, 224, 3))
    # 4.652 million with the classifier of 1,000 classes; 42,016 statistics of BatchNormalization.
    assert base.count_params() == 4_652_008 - 1281 * 1000 + 42_016
    assert base.output_shape == (None, 1280)
    shapes = [
        base.get_layer(f"block{n}_project").output.shape[1:] for n in (1, 3, 5, 8, 11, 15, 16)
    ]
    assert shapes == [
        *((112, 112, 16), (56, 56, 24), (28, 28, 40), (14, 14, 80)),
        *((14, 14, 112), (7, 7, 192), (7, 7, 320)),
    ]


def test_efficientnet_lite0_has_its_weights():
    base = make_network("efficientnet_lite0", (96, 96, 3), 2, LITE).get_layer("base")
    assert [each.shape for each in base.weights] == [each.shape for each in read_weights()]
    stem = base.get_layer("stem").kernel.numpy()
    # Kernels that were learned are smooth; random ones are not.
    assert np.corrcoef(stem[:, :-1].ravel(), stem[:, 1:].ravel())[0, 1] > 0.2
    assert all(np.isfinite(each).all() for each in read_weights())
    variances = [each for each in base.weights if each.name == "moving_variance"]
    assert all((each.numpy() >= 0).all() for each in variances)


def test_efficientnet_lite0_is_frozen_unless_fine_tuned():
    frozen = build("efficientnet_lite0", (96, 96, 3), 2, dropout_rate=0.0)
    assert [each.path for each in frozen.trainable_variables] == ["scores/kernel", "scores/bias"]
    tuned = make_network("efficientnet_lite0", (96, 96, 3), 2, DEFAULTS)
    assert len(tuned.trainable_variables) > 100
    pixels = random_pixels((96, 96, 3), 4)
    assert np.array_equal(frozen(pixels, training=True), frozen(pixels, training=False))


def test_only_a_head_on_pretrained_features_starts_at_zero():
    pixels = random_pixels((96, 96, 3))
    for head in ("softmax", "sigmoid", "multi_label"):
        options = {**LITE, "head": head}
        for name in ("efficientnet_lite0", "simple"):
            network = make_network(name, (96, 96, 3), 2, options)
            assert np.any(network(pixels)) == (name == "simple")


def test_middle_features_follow_those_of_the_top():
    colors = np.random.default_rng(0).normal(0, 0.5, (2, 96, 96, 3))
    both, top = (make_base((96, 96, 3), middle_features=each) for each in (True, False))
    for base in (both, top):
        base.set_weights(read_weights())
    middle = keras.Model(both.input, both.get_layer("block11_add").output)(colors)
    expected = np.concatenate([top(colors), np.mean(middle, (1, 2))], 1)
    assert np.allclose(both(colors), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(95, 224), (224, 385), (28, 28)])
def test_efficientnet_lite0_refuses_other_image_sizes(size):
    with pytest.raises(SettingsError, match=r"96 to 384 .*image_size"):
        make_network("efficientnet_lite0", (*size, 3), 2, LITE)


def test_efficientnet_lite0_takes_the_largest_images():
    assert make_network("efficientnet_lite0", (384, 384, 1), 2, LITE).output_shape == (None, 2)


class _Unpicklable:
    def __reduce__(self):
        return print, ("this must not run",)


def test_script_for_the_weights_reads_arrays_only(capsys):
    header = pickle.dumps(0) * 3
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        read_tensors(header + pickle.dumps({"kernel": _Unpicklable()}))
    assert capsys.readouterr().out == ""


def test_hub_refuses_another_image_size(tmp_path):
    save_tf1_module(tmp_path / "module")
    settings = {**DEFAULTS, "hub_handle": str(tmp_path / "module"), "fine_tuning": False}
    assert make_network("hub", (6, 6, 3), 2, settings).output_shape == (None, 2)
    with pytest.raises(SettingsError, match=r"6 x 6 .*8 x 8.*--image_size 6"):
        make_network("hub", (8, 8, 3), 2, settings)


def test_hub_refuses_a_module_without_features(tmp_path):
    save_call(tmp_path, tf.identity, None, None, None, 3)
    settings = {**DEFAULTS, "hub_handle": str(tmp_path), "fine_tuning": False}
    with pytest.raises(UserError, match=str(tmp_path)):
        make_network("hub", (6, 6, 1), 2, settings)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet50", "--model application --application ResNet50"),
        ("EfficientNet_B0", "--model application --application EfficientNetB0"),
        ("mobilenet-v2", "--model application --application MobileNetV2"),
        ("densenet12", "--model application --application DenseNet121"),
        ("https://tfhub.dev/x/y/1", "--model hub --hub_handle https://tfhub.dev/x/y/1"),
        ("tfhub.dev/x/y/1", "--model hub --hub_handle https://tfhub.dev/x/y/1"),
        ("gs://b/my module", "--model hub --hub_handle 'gs://b/my module'"),
        ("simpel", "'simple'"),
        ("residul", "'residual'"),
    ],
)
def test_unknown_network_names_what_was_meant(name, meant):
    with pytest.raises(ChoiceError, match=re.escape(meant)) as caught:
        make_network(name, (32, 32, 3), 2, Hyperparameters().model_dump())
    assert repr(name) in str(caught.value)
