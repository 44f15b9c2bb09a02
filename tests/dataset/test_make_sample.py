import gzip
import struct
import zipfile

import numpy as np
import pytest

from dataset import make_sample
from library.errors import DataError
from tests.conftest import ROOT


@pytest.fixture
def source(tmp_path):
    """Four idx files of tiny noise, as many images of each class as the sample wants."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 450), ("t10k", 100)):
        labels = generator.permutation(np.repeat(np.arange(10), count)).astype(np.uint8)
        images = generator.integers(0, 256, (len(labels), 2, 3)).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            shape = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(shape + array.tobytes()))
    return tmp_path


def test_bundled_sample_has_classes_and_license():
    path = ROOT / "dataset" / "sample.zip"
    assert path.stat().st_size <= 4 << 20
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert "Copyright 2017 Zalando SE" in archive.read("LICENSE").decode()
    assert len(names) == 1 + 10 * (400 + 50 + 100)
    assert {name.split("/")[1] for name in names[1:]} == set(make_sample.CLASSES)


def test_same_call_writes_same_bytes(source, tmp_path, capsys):
    for name in ("a.zip", "b.zip"):
        make_sample.main([str(tmp_path / name), "--source", str(source)])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert "a.zip: " in capsys.readouterr().out


def test_missing_or_damaged_source_is_refused(source, tmp_path):
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        make_sample.main([str(tmp_path / "a.zip"), "--source", str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match=r"450 .*T-shirt_top.* 5500"):
        make_sample.main([str(tmp_path / "a.zip"), "--all", "--source", str(source)])
    path = source / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is damaged"):
        make_sample.main([str(tmp_path / "a.zip"), "--source", str(source)])
    path.write_bytes(gzip.compress(b"not idx at all"))
    with pytest.raises(DataError, match="idx"):
        make_sample.main([str(tmp_path / "a.zip"), "--source", str(source)])
    assert not (tmp_path / "a.zip").exists()


def test_all_needs_output(capsys):
    with pytest.raises(SystemExit):
        make_sample.main(["--all"])
    assert "OUTPUT" in capsys.readouterr().err
