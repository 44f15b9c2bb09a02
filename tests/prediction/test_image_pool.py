"""Images that make a decoder crash cost themselves alone."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import run
from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.errors import run_main
from library.prediction import image_pool as module
from library.prediction.image_pool import ImagePool
from tests.conftest import COLORS, ROOT

OPTIONS = ImageOptions(max_edge=20)
# In each process that decodes: what holds this word makes it crash, as a fault of its own would.
CRASHING = """
import os, signal
import library.dataset.images as images
load = images.decode_image
def decode(content, *options):
    if b"crash" in content:
        os.kill(os.getpid(), signal.SIGSEGV)
    return load(content, *options)
images.decode_image = decode
"""


@pytest.fixture
def crashing(tmp_path, monkeypatch, real_workers):
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")


def encode(color, kind="PNG", size=(30, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def test_converts_like_convert_image():
    random = np.random.default_rng(0)
    contents = [encode(tuple(random.integers(0, 256, 3))) for _ in range(40)]
    contents += [encode("red", "JPEG", (15, 9)), encode("red", "JPEG", (40, 40))]
    with ImagePool() as converters, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda each: converters.convert(each, OPTIONS), contents))
    assert found == [convert_image(each, OPTIONS) for each in contents]


def test_conformant_jpeg_needs_no_process(monkeypatch):
    monkeypatch.setattr(module.WorkerPool, "apply", None)
    content = encode("red", "JPEG", (20, 9))
    with ImagePool() as converters:
        assert converters.convert(content, OPTIONS) == (content, 9, 20)


def test_processes_grow_with_work(monkeypatch):
    monkeypatch.setattr(module, "_FILES_PER_PROCESS", 3)
    content = encode("red")
    with ImagePool(2) as converters:
        counts = []
        for _ in range(8):
            converters.convert(content, OPTIONS)
            counts.append(len(converters._pool.processes))
    assert counts == [1, 1, 2, 2, 2, 2, 2, 2]
    monkeypatch.setattr(module, "_BYTES_PER_PROCESS", len(content))
    with ImagePool(2) as converters:
        converters.convert(content, OPTIONS)
        assert len(converters._pool.processes) == 2


def test_unusable_images_have_reason(crashing):
    with ImagePool(1) as converters:
        for content, reason in (
            (b"hello", "is not a JPEG, PNG, GIF, BMP, TIFF or WebP image"),
            (b"\xff\xd8\xff\xe0", "is a truncated or damaged JPEG"),
            (b"crash", r"makes the decoder crash \(SIGSEGV\)"),
        ):
            with pytest.raises(UnusableImageError, match=reason):
                converters.convert(content, OPTIONS)
        assert converters.convert(encode("red"), OPTIONS) == convert_image(encode("red"), OPTIONS)


def test_damaged_data_of_a_jpeg_is_refused_as_by_conversion():
    content = encode("red", "JPEG", (20, 20))
    scan = content.index(b"\xff\xda") + 14
    damaged = content[:scan] + b"\x55" + content[-2:]
    # TensorFlow fills what is missing, without an error.
    assert tf.io.decode_jpeg(damaged).shape == (20, 20, 3)
    with ImagePool() as converters:
        for convert in (converters.convert, convert_image):
            with pytest.raises(UnusableImageError, match="damaged JPEG"):
                convert(damaged, OPTIONS)


@pytest.mark.slow
def test_prediction_survives_crashing_image(crashing, capsys, monkeypatch, snapshot_run, tmp_path):
    monkeypatch.chdir(ROOT)
    names = []
    for number in range(12):
        names.append(["red", "blue", "crash"][number % 3])
        content = b"crash" if names[-1] == "crash" else encode(COLORS[names[-1]])
        (tmp_path / f"{number:02d}.png").write_bytes(content)
    files = [str(each) for each in sorted(tmp_path.glob("*.png"))]
    code = run_main(run.main, ["predict", *files, *snapshot_run.options], "run.py")
    out, err = capsys.readouterr()
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["file"] for row in rows] == files
    assert [row["class"] or "crash" for row in rows] == names
    assert rows[2]["error"] == "makes the decoder crash (SIGSEGV)"
    assert f"{files[2]} makes the decoder crash (SIGSEGV)" in err.splitlines()
    assert "8 images predicted, 4 unreadable" in err
