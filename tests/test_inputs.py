import io

import numpy as np
import pytest
from PIL import Image

from library.dataset.manifest import read_manifest
from project.augmentations import choose_augmentations
from project.inputs import EvaluationInputs, ImageFormat, Reading, TrainingInputs
from tests.conftest import convert


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """50 grey images, each of one brightness of its own, so that a pixel tells which one it is."""
    folder = tmp_path_factory.mktemp("numbered")
    for number in range(50):
        path = folder / "images" / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 5 * number).save(path)
    convert(folder / "images", folder, "train")
    return read_manifest(folder / "train", "train")


def make_training(manifest, **changes):
    options = {
        "paths": tuple(str(path) for path in manifest.paths),
        "examples": manifest.examples,
        "image_format": ImageFormat(8, 1),
        "batch_size": 8,
        "shuffle_examples": 100,
        "seed": 0,
    }
    return TrainingInputs(**{**options, **changes})


def arrays(batches):
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def numbers(batches):
    """Which images there were, in order."""
    return [round(float(image[0, 0, 0]) / 5) for images, _ in batches for image in images]


def test_an_epoch_holds_each_example_once_with_its_label(numbered):
    batches = arrays(make_training(numbered).batches(0))
    assert sorted(numbers(batches)) == list(range(50))
    labels = [label for _, labels in batches for label in labels]
    assert labels == [number % 2 for number in numbers(batches)]
    assert [len(labels) for _, labels in batches] == [8] * 6 + [2]
    assert batches[0][0].dtype == np.uint8
    assert batches[0][1].dtype == np.int64


def test_the_order_is_a_function_of_seed_and_epoch(numbered):
    def order(epoch, **changes):
        return numbers(arrays(make_training(numbered, **changes).batches(epoch)))

    assert order(3) == order(3)
    assert order(3) == order(3, reading=Reading(2, 1, 0))
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, seed=1))}) == 3
    assert order(0) != sorted(order(0))


@pytest.mark.parametrize("batch_size", [8, 25])
def test_any_batch_can_be_started_at_exactly(numbered, batch_size):
    crop, others = choose_augmentations(["distorted_crop", "flip", "brightness", "pad_and_crop=2"])
    training = make_training(
        numbered, batch_size=batch_size, crop=crop, augmentations=tuple(others)
    )
    whole = arrays(training.batches(2))
    assert len(whole) == training.batches_per_epoch
    for start in range(len(whole) + 1):
        rest = arrays(training.batches(2, start))
        assert len(rest) == len(whole) - start
        for (images, labels), (same_images, same_labels) in zip(whole[start:], rest, strict=True):
            assert np.array_equal(images, same_images)
            assert np.array_equal(labels, same_labels)


def test_evaluation_is_in_order_and_whole(numbered):
    paths = tuple(str(path) for path in numbered.paths)
    inputs = EvaluationInputs(paths, 50, ImageFormat(8, 1), 16)
    first, second = numbers(arrays(inputs.batches())), numbers(arrays(inputs.batches()))
    assert first == second
    assert sorted(first) == list(range(50))
    slow = EvaluationInputs(paths, 50, ImageFormat(8, 1), 16, Reading(1, 1, 0))
    assert numbers(arrays(slow.batches())) == first


def encode(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentations", [(), ("distorted_crop",)])
def test_images_of_any_size_get_the_networks_size(tmp_path, channels, augmentations):
    for number, size in enumerate([(40, 20), (9, 33), (8, 8)]):
        path = tmp_path / "images" / "a" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.new("RGB", size, (200, 100, 50))))
    convert(tmp_path / "images", tmp_path, "train")
    manifest = read_manifest(tmp_path / "train", "train")
    crop, _ = choose_augmentations(augmentations)
    training = make_training(manifest, image_format=ImageFormat(8, channels), crop=crop)
    ((images, _),) = arrays(training.batches(0))
    assert images.shape == (3, 8, 8, channels)
    expected = [200, 100, 50] if channels == 3 else [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert np.abs(images.astype(int) - expected).max() <= 3
