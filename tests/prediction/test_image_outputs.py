"""Outputs for every image of a split: collected in one pass, written, read, refused."""

from dataclasses import replace

import numpy as np
import pytest

from library.dataset.manifest import read_manifest
from library.errors import DataError, DivergedError
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.models.scores import MULTI_LABEL
from library.prediction.image_outputs import (
    collect_image_outputs,
    read_image_outputs,
    write_image_outputs,
)
from library.prediction.predictor import Predictor
from project.inputs import EvaluationPipeline
from tests.helpers.networks import make_snapshot


def inputs_of(folder, name="train"):
    source = make_source(read_manifest(folder / name, name))
    return EvaluationPipeline(source, ImageFormat(8, 3), batch_size=7)


@pytest.fixture(scope="module")
def outputs(colors):
    snapshot = make_snapshot(hidden=5)
    return collect_image_outputs(snapshot, inputs_of(colors), with_embeddings=True)


def test_collected_outputs_are_those_of_each_image(colors, outputs):
    predictor = Predictor([make_snapshot(hidden=5)], embedding=True)
    batches = list(inputs_of(colors).named_batches().as_numpy_iterator())
    images, labels, names = map(np.concatenate, zip(*batches, strict=True))
    probabilities, embeddings = predictor.predict(images)
    assert len(outputs) == 60
    assert [name.encode() for name in outputs.names] == names.tolist()
    assert np.array_equal(outputs.labels, labels)
    assert np.allclose(outputs.probabilities, probabilities, atol=1e-6)
    assert np.allclose(outputs.embeddings, embeddings, atol=1e-5)


def test_collected_multi_label_outputs(patches):
    snapshot = make_snapshot(classes=("blue", "red"), head=MULTI_LABEL)
    found = collect_image_outputs(snapshot, inputs_of(patches))
    assert found.is_multi_label
    assert found.embeddings is None
    assert found.labels.sum(0).tolist() == [24, 24]


def test_outputs_with_nan_are_refused(colors):
    snapshot = make_snapshot()
    snapshot.network.layers[-1].bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(DivergedError, match="png"):
        collect_image_outputs(snapshot, inputs_of(colors))


def test_written_outputs_are_read_back(outputs, tmp_path):
    with_folds = replace(outputs, folds=np.arange(60) % 5 + 1)
    write_image_outputs(tmp_path / "out.npz", with_folds)
    found = read_image_outputs(tmp_path / "out.npz")
    assert (found.names, found.classes) == (outputs.names, outputs.classes)
    for name in ("labels", "probabilities", "embeddings", "folds"):
        one, other = getattr(found, name), getattr(with_folds, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    write_image_outputs(tmp_path / "out.npz", replace(outputs, embeddings=None))
    assert read_image_outputs(tmp_path / "out.npz").embeddings is None


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.full(60, 3)},
        {"labels": np.zeros(59, int)},
        {"labels": np.array([None] * 60)},
        {"probabilities": np.full((60, 3), np.nan, np.float32)},
        {"probabilities": np.zeros((60, 2), np.float32)},
        {"embeddings": np.full((60, 5), np.inf, np.float32)},
        {"folds": np.ones(60, np.float32)},
        {"header": np.frombuffer(b"[1]", np.uint8)},
        {"header": np.frombuffer(b"{}", np.uint8)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_damaged_outputs_are_refused(outputs, changed, tmp_path):
    path = tmp_path / "out.npz"
    write_image_outputs(path, outputs)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **changed})
    with pytest.raises(DataError, match=r"out\.npz"):
        read_image_outputs(path)


def test_missing_and_cut_outputs_are_refused(outputs, tmp_path):
    path = tmp_path / "out.npz"
    with pytest.raises(DataError, match="does not exist"):
        read_image_outputs(path)
    write_image_outputs(path, outputs)
    for size in (0, 10, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match=r"out\.npz"):
            read_image_outputs(path)
