"""Explanations of predictions: which images, what is shown of them, and how it is drawn."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from library.dataset.images import UnusableImageError
from library.dataset.locations import MemoryLocation, NoLocation
from library.dataset.sources.base import LabeledFile
from library.errors import DataError
from library.explaining.explanation import (
    InputImage,
    choose_images,
    class_names,
    explain_images,
    load_images,
)
from library.explaining.feature_maps import draw_layers, draw_values
from library.explaining.grad_cam import HIRES_CAM, OCCLUSION
from library.explaining.layer_graph import flatten_network
from library.explaining.neighbors import find_neighbors, make_embed
from library.explaining.overlays import (
    color_heatmap,
    encode_image,
    enlarge,
    overlay_heatmap,
    to_rgb_image,
)
from library.models.scores import MULTI_LABEL
from library.prediction.ensemble import combine_snapshots
from tests.explaining.test_layer_graph import PIXELS, make_nested
from tests.helpers.networks import make_snapshot
from tests.helpers.small_networks import build

CLASSES = ("cat", "dog", "owl")
RANDOM = np.random.default_rng(0)
SPLIT_PIXELS = RANDOM.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
SPLIT_LABELS = np.array([1, 1, 1, 0, 0, 2, 1, 0, 2])


class Source:
    def find_corruption(self):
        return None


class Inputs:
    """A split as EvaluationInputs gives it, from arrays."""

    source = Source()

    def __init__(self, labels=SPLIT_LABELS):
        self.labels = labels

    def named_batches(self):
        for start in (0, 4, 8):
            here = slice(start, start + 4)
            names = np.array([f"{each}.png".encode() for each in range(9)], object)
            yield SPLIT_PIXELS[here], self.labels[here], names[here]


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build("simple", (8, 8, 3), 3)


def test_choose_images_covers_classes():
    chosen = choose_images(Inputs(), CLASSES, 3)
    assert [each.name for each in chosen] == ["0.png", "3.png", "5.png"]
    assert [each.true_classes for each in chosen] == [("dog",), ("cat",), ("owl",)]
    assert np.array_equal(chosen[1].pixels, SPLIT_PIXELS[3])
    assert [each.name for each in choose_images(Inputs(), CLASSES, 5)] == [
        f"{each}.png" for each in (0, 1, 3, 4, 5)
    ]
    assert len(choose_images(Inputs(), CLASSES, 100)) == 9


def test_explain_images(network):
    images = [InputImage("a.png", SPLIT_PIXELS[0], ("owl",)), InputImage("b.png", SPLIT_PIXELS[1])]
    explanation = explain_images(network, CLASSES, images, Inputs(), neighbor_count=2)
    assert explanation.method == HIRES_CAM
    assert explanation.kernels.shape[2] == 3
    assert [each.name for each in explanation.layers][-1] == "scores"
    scores = network(SPLIT_PIXELS[:2].astype(np.float32)).numpy()
    for explained, row, number in zip(explanation.images, scores, (0, 1), strict=True):
        likeliest = CLASSES[row.argmax()]
        assert explained.ranking[0][0] == likeliest
        exponents = np.exp(row - row.max())
        assert explained.ranking[0][1] == pytest.approx(exponents.max() / exponents.sum(), rel=1e-5)
        assert sum(each for _, each in explained.ranking) == pytest.approx(1)
        assert list(explained.heatmaps) == list(
            dict.fromkeys((likeliest, *(("owl",) * (number == 0))))
        )
        near, names = explained.neighbors[0]
        assert (near.index, names) == (number, ("dog",))
        assert len(explained.neighbors) == 2
    assert explanation.images[0].is_correct == (explanation.images[0].ranking[0][0] == "owl")
    assert explanation.images[1].is_correct is None


def test_explain_images_without_training_split(network):
    (explained,) = explain_images(network, CLASSES, [InputImage("a", SPLIT_PIXELS[0])]).images
    assert explained.neighbors == ()


def test_explain_images_of_a_network_without_embedding(capsys):
    pixels = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(len(CLASSES), 3)(pixels)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(maps))
    images = [InputImage("a", SPLIT_PIXELS[0])]
    (explained,) = explain_images(network, CLASSES, images, Inputs(), neighbor_count=2).images
    assert explained.neighbors == ()
    assert "nearest" in capsys.readouterr().err


def test_explain_images_of_a_sequential_network_without_maps():
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(len(CLASSES))]
    )
    images = [InputImage("a", SPLIT_PIXELS[0])]
    explanation = explain_images(network, CLASSES, images, Inputs(), neighbor_count=2)
    assert explanation.method == OCCLUSION
    assert len(explanation.images[0].neighbors) == 2


def test_explain_multi_label_image():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(3, name=MULTI_LABEL)(x))
    labels = np.eye(3, dtype=np.float32)[SPLIT_LABELS]
    labels[0] = [1, 1, 0]
    assert class_names(labels[0], CLASSES) == ("cat", "dog")
    images = choose_images(Inputs(labels), CLASSES, 1)
    (explained,) = explain_images(network, CLASSES, images, Inputs(labels), neighbor_count=1).images
    assert explained.image.true_classes == ("cat", "dog")
    assert set(explained.heatmaps) >= {"cat", "dog"}
    assert explained.neighbors[0][1] == ("cat", "dog")
    scores = network(SPLIT_PIXELS[:1].astype(np.float32)).numpy()[0]
    assert dict(explained.ranking)["owl"] == pytest.approx(1 / (1 + np.exp(-scores[2])), abs=1e-5)
    assert make_embed(network)(SPLIT_PIXELS[:1]).shape == (1, 72)


class Preprocessor:
    """Prepares the file `good` only."""

    def preprocess(self, content):
        if content == b"huge":
            raise MemoryError
        if content != b"good":
            raise UnusableImageError("is not an image")
        return np.zeros((2, 2, 3), np.uint8)


def files(*contents):
    for number, content in enumerate(contents):
        location = MemoryLocation(content) if content is not None else NoLocation("it is a pipe")
        yield LabeledFile(f"{number}.png", "", 4, 0, location)


def test_load_images_skips_unusable_files(capsys):
    images = load_images(files(b"good", b"text", None, b"huge", b"good"), Preprocessor(), 8)
    assert [each.name for each in images] == ["0.png", "4.png"]
    assert images[0].true_classes is None
    text, pipe, huge = capsys.readouterr().err.splitlines()
    assert text.startswith("1.png is not an image")
    assert pipe.startswith("2.png ")
    assert "it is a pipe" in pipe
    assert huge.startswith("3.png ")
    assert "memory" in huge


def test_load_images_stops_at_count(capsys):
    assert len(load_images(files(*[b"good"] * 3), Preprocessor(), 2)) == 2
    assert "--explain_images" in capsys.readouterr().err


def test_load_images_needs_a_usable_file():
    with pytest.raises(DataError):
        load_images(files(b"text"), Preprocessor(), 2)


IMAGES = RANDOM.integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)
IMAGE_LABELS = RANDOM.integers(0, 3, 37)


def batches(images, size):
    for start in range(0, len(images), size):
        end = min(start + size, len(images))
        names = np.array([f"{each}.jpg".encode() for each in range(start, end)], object)
        yield images[start:end], IMAGE_LABELS[start:end], names


@pytest.mark.parametrize("size", [1, 5, 37])
def test_find_neighbors_matches_full_comparison(network, size):
    embed = make_embed(network)
    embeddings = keras.Model(network.input, network.get_layer("scores").input)(
        IMAGES.astype(np.float32)
    ).numpy()
    # All at once, by the textbook: the cosine of every pair.
    lengths = np.linalg.norm(embeddings, axis=1)
    cosines = embeddings[:4] @ embeddings.T / lengths / lengths[:4, np.newaxis]
    found = find_neighbors(embed(IMAGES[:4]), batches(IMAGES, size), embed, 6)
    for query, nearest in enumerate(found):
        numbers = [each.index for each in nearest]
        assert numbers == np.argsort(-cosines[query])[:6].tolist()
        assert numbers[0] == query
        similarities = [each.similarity for each in nearest]
        assert np.allclose(similarities, cosines[query][numbers], atol=1e-5)
        assert similarities[0] == pytest.approx(1)
        for each in nearest:
            assert (each.name, each.label) == (f"{each.index}.jpg", IMAGE_LABELS[each.index])
            assert np.array_equal(each.pixels, IMAGES[each.index])


def test_find_neighbors_prefers_first_of_equals(network):
    embed = make_embed(network)
    twins = np.repeat(IMAGES[:1], 8, 0)
    (nearest,) = find_neighbors(embed(IMAGES[:1]), batches(twins, 4), embed, 3)
    assert [each.index for each in nearest] == [0, 1, 2]
    (nearest,) = find_neighbors(embed(IMAGES[:1]), batches(IMAGES[:2], 4), embed, 3)
    assert [each.index for each in nearest] == [0, 1]


def test_embedding_of_ensemble():
    first, second = make_snapshot(0, hidden=3), make_snapshot(1, hidden=4)
    found = make_embed(combine_snapshots([first, second]).network)(IMAGES)
    parts = [
        keras.Model(each.network.input, each.network.layers[-1].input)(np.float32(IMAGES))
        for each in (first, second)
    ]
    expected = np.concatenate(parts, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found, expected, atol=1e-6)


def test_embedding_of_zeros():
    pixels = keras.Input((2, 2, 1))
    scores = keras.layers.Dense(2, name="scores")
    network = keras.Model(pixels, scores(keras.layers.Flatten()(pixels)))
    embed = make_embed(network)
    assert embed(np.zeros((1, 2, 2, 1))).tolist() == [[0, 0, 0, 0]]
    assert embed(np.full((1, 2, 2, 1), 7)).tolist() == [[0.5, 0.5, 0.5, 0.5]]


def test_draw_layers():
    network = make_nested()
    drawn = {each.name: each for each in draw_layers(flatten_network(network), PIXELS[0])}
    look = network.get_layer("base").get_layer("look")
    output = look(PIXELS[:1] / 255).numpy()[0]
    assert drawn["base/look"].shape == output.shape == (30, 30, 4)
    # Two rows of two maps, a line between them.
    assert drawn["base/look"].drawing.size == (61, 61)
    first = np.asarray(drawn["base/look"].drawing)[:30, :30]
    scaled = (output[..., 0] - output[..., 0].min()) / np.ptp(output[..., 0])
    assert np.abs(first - 255 * scaled).max() <= 1
    assert drawn["scores"].shape == (3,)
    assert drawn["base/stem/deepest"].zeros > 0
    assert drawn["base/stem/deepest"].description.startswith("5 maps of 28 x 28, ")


def test_draw_layers_skips_dropout():
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten(name="flat")(pixels))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(x))
    names = [each.name for each in draw_layers(flatten_network(network), PIXELS[0, :4, :4, :1])]
    assert names == ["flat", "scores"]


def test_draw_values_of_many_large_maps():
    drawing = draw_values(np.zeros((192, 96, 100), np.float32))
    assert drawing.size == (8 * 49 - 1, 8 * 97 - 1)


def test_draw_values_without_positions():
    drawing = np.asarray(draw_values(np.arange(8, dtype=np.float32)))
    # Two rows of four, each value enlarged.
    assert drawing.shape == (12, 24)
    assert drawing[::6, ::6].tolist() == [[0, 36, 73, 109], [146, 182, 219, 255]]
    assert draw_values(np.zeros((5, 7), np.float32)).size[0] >= 24
    assert draw_values(np.zeros(1, np.float32)).size == (24, 12)


CORNER = np.zeros((4, 4), np.float32)
CORNER[0, 0] = 1


def test_color_heatmap_is_transparent_without_evidence():
    painted = color_heatmap(CORNER, (64, 32))
    assert painted.shape == (32, 64, 4)
    assert painted[0, 0].tolist() == [252, 253, 191, 153]
    assert (painted[16:, 32:, 3] == 0).all()
    assert (color_heatmap(np.zeros((3, 3)), (9, 9))[..., 3] == 0).all()


def test_color_heatmap_covers_its_region():
    # What was cropped away has no evidence.
    cropped = color_heatmap(CORNER, (64, 32), (0, 0.25, 1, 0.75))
    assert np.array_equal(cropped[:, 16:48], color_heatmap(CORNER, (32, 32)))
    assert (cropped[:, [*range(16), *range(48, 64)], 3] == 0).all()
    # What was padded is not shown.
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[2:4] = 1
    padded = color_heatmap(heatmap, (64, 32), (-0.5, 0, 1.5, 1))
    assert np.array_equal(padded, color_heatmap(heatmap, (64, 64))[16:48])
    assert padded[0, 0, 3] > 0 == padded[-1, 0, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_overlay_changes_only_pixels_with_evidence(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    cold = np.asarray(overlay_heatmap(pixels, np.zeros((4, 4))))
    assert np.array_equal(cold, pixels.repeat(3 // channels, 2))
    warm = np.asarray(overlay_heatmap(pixels, CORNER))
    changed = (warm != cold).any(-1)
    assert changed[:5, :7].all()
    assert not changed[10:, 15:].any()


def test_enlarge_repeats_pixels():
    image = to_rgb_image(np.arange(12, dtype=np.uint8).reshape(2, 6, 1))
    large = np.asarray(enlarge(image, 5))
    assert large.shape == (6, 18, 3)
    assert (large[:3, 3:6] == 1).all()
    assert enlarge(image, 2).size == image.size


def test_encode_image_round_trip():
    pixels = np.full((3, 5, 4), 77, np.uint8)
    with Image.open(io.BytesIO(encode_image(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    with Image.open(io.BytesIO(encode_image(to_rgb_image(pixels[..., :3]), "WEBP"))) as image:
        assert image.format == "WEBP"
