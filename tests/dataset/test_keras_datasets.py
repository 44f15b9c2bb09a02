import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from library.dataset.sources.keras_datasets import KERAS_DATASETS, find_in_keras
from library.errors import DataError


@pytest.fixture
def keras(monkeypatch):
    """A Keras whose datasets need no download."""
    train = (np.full((3, 8, 8, 3), 200, np.uint8), np.array([[0], [9], [3]]))
    test = (np.zeros((2, 8, 8), np.uint8), np.array([1, 1]))
    datasets = types.SimpleNamespace(
        cifar10=types.SimpleNamespace(load_data=lambda: (train, test)),
        mnist=types.SimpleNamespace(load_data=lambda: 1 / 0),
    )
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(datasets=datasets))


def test_each_image_is_a_file_of_its_class(keras):
    files = list(find_in_keras("cifar10", "train"))
    assert [file.name for file in files] == [
        "airplane/00000.png",
        "truck/00001.png",
        "cat/00002.png",
    ]
    image = Image.open(io.BytesIO(files[0].location.read()))
    assert image.getpixel((0, 0)) == (200, 200, 200)
    assert [file.label for file in find_in_keras("cifar10", "test")] == ["automobile"] * 2


def test_what_keras_says_of_its_download_is_no_result(keras, capsys, monkeypatch):
    datasets = sys.modules["keras"].datasets
    data = datasets.cifar10.load_data()
    monkeypatch.setattr(datasets.cifar10, "load_data", lambda: print("Downloading") or data)
    list(find_in_keras("cifar10", "train"))
    assert capsys.readouterr() == ("", "Downloading\n")


def test_a_failed_download_is_one_line(keras):
    with pytest.raises(DataError, match=r"keras.datasets.mnist can't be loaded: division by zero"):
        list(find_in_keras("mnist", "train"))


def test_there_are_as_many_names_as_classes():
    counts = {name: len(set(classes)) for name, classes in KERAS_DATASETS.items()}
    assert counts == {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "mnist": 10}
