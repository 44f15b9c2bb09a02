import zipfile

import h5py
import numpy as np
import pytest

from library.saving import weights_file
from library.saving.weights_file import check_keras_file, check_weights


@pytest.fixture
def small_floor(monkeypatch):
    monkeypatch.setattr(weights_file, "_FLOOR_BYTES", 1 << 16)


def write_plain(file):
    file["layers/dense/vars/0"] = np.ones((100, 100))


def write_compressed(file):
    file.create_dataset("layers/dense/vars/0", (10**4, 10**3), "f4", compression="gzip")


def write_unwritten(file):
    file.create_dataset("layers/dense/vars/0", (10**6, 10**6), "f4", chunks=(10, 10))


def write_repeated(file):
    file["vars/0"] = np.ones(10**4)
    for number in range(1, 100):
        file[f"vars/{number}"] = file["vars/0"]


def write_circle(file):
    layers = file.create_group("layers")
    layers["layers"] = layers


def write_soft_link(file):
    file["vars/0"] = h5py.SoftLink("/elsewhere")


def write_external_link(file):
    file["vars"] = h5py.ExternalLink("/etc/passwd", "/")


def write_external_data(file):
    file.create_dataset("vars/0", (4,), "u1", external=[("/etc/passwd", 0, 4)])


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_plain, None),
        (write_compressed, "would expand"),
        (write_unwritten, "would expand"),
        (write_repeated, "would expand"),
        (write_circle, "50,000 entries"),
        (write_soft_link, "'0' is a link"),
        (write_external_link, "'vars' is a link"),
        (write_external_data, "'0' is stored in another file"),
    ],
)
@pytest.mark.usefixtures("small_floor")
def test_weights_are_all_in_their_file(tmp_path, write, words, pack):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        write(file)
    if pack:
        with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
            archive.write(path, path.name)

    def check():
        if pack:
            check_keras_file(tmp_path / "model.keras")
        else:
            check_weights(path, path.stat().st_size)

    if words is None:
        check()
    else:
        with pytest.raises(ValueError, match=words):
            check()


@pytest.mark.usefixtures("small_floor")
def test_bomb_in_a_keras_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/base", bytes(10**6))
    with pytest.raises(ValueError, match="would expand to 1,000,000"):
        check_keras_file(tmp_path / "a.keras")
