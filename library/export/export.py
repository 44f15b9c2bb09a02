"""Export a snapshot to a numbered folder; each format is loaded again and compared first."""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from library.errors import UserError, first_line, printable
from library.export.formats import FORMATS
from library.export.litert_onnx import (
    LiteRTModel,
    OnnxModel,
    make_litert_converter,
    one_by_one,
    to_probability_network,
    write_onnx,
)
from library.export.model_card import make_model_card
from library.export.quantization_loss import describe_largest_losses
from library.export.saved_model import LoadedSavedModel, append_scores, write_saved_model
from library.export.verification import Comparison, ExportSamples, compare
from library.files import new_folder, seal_folder
from library.models.scores import is_multi_label
from library.prediction.calibrate import CalibratedSnapshot
from library.prediction.predictor import Predictor
from library.saving.snapshots import Snapshot
from library.tensorflow_import import captured_stderr

_LITERT_PRECISIONS = {"litert": "float32", "litert_float16": "float16", "litert_int8": "int8"}
_BATCH_SIZE = 32


def export_snapshot(
    calibrated: CalibratedSnapshot,
    folder: Path,
    formats: Sequence[str],
    samples: ExportSamples,
    *,
    embedding: bool = False,
) -> tuple[Path, dict[str, Comparison]]:
    """Write `<folder>/<next number>/` with all formats and a model card, or nothing at all.

    Args:
        calibrated: The snapshot to export.
        folder: The folder of the numbered exports.
        formats: Names of FORMATS.
        samples: The images to compare each format with the snapshot on.
        embedding: Whether the SavedModel also returns embeddings.

    Returns:
        The path of the new folder, and a Comparison for each format.

    Raises:
        UserError: A format cannot hold the network, or its probabilities differ too much.
    """
    snapshot, detector = calibrated.snapshot, calibrated.detector
    outputs = Predictor([snapshot], detector=detector).run(samples.pixels)
    expected = append_scores(
        outputs.probabilities, {"unknown_score": outputs.unknown_scores} if detector else {}
    )
    path = folder / str(_next_number(folder))
    with new_folder(path) as partial:
        comparisons = {}
        for name in formats:
            for found in _export_format(name, partial, calibrated, samples, embedding):
                try:
                    comparisons[name] = compare(
                        name,
                        found,
                        expected,
                        multi_label=is_multi_label(snapshot.network),
                        has_unknown_score=detector is not None,
                    )
                except UserError as error:
                    if name != "litert_int8":
                        raise
                    losses = _describe_losses(snapshot, samples)
                    raise UserError(f"{error}; {losses}") from error
        lines = [printable(name) + "\n" for name in snapshot.classes]
        (partial / "classes.txt").write_text("".join(lines), encoding="utf-8")
        names = json.dumps(snapshot.classes, ensure_ascii=False)
        (partial / "classes.json").write_text(names, encoding="utf-8")
        card = make_model_card(calibrated, path, comparisons, samples, embedding=embedding)
        (partial / "README.md").write_text(card, encoding="utf-8")
        seal_folder(partial)
    return path, comparisons


def _export_format(
    name: str, folder: Path, calibrated: CalibratedSnapshot, samples: ExportSamples, embedding: bool
) -> list[np.ndarray]:
    """Write one format; return the answers of the loaded export for each of its inputs."""
    snapshot, detector = calibrated.snapshot, calibrated.detector
    path = folder / FORMATS[name].file
    with _quiet(), _temporary_files_in(folder):
        try:
            if name == "saved_model":
                write_saved_model(folder, snapshot, embedding=embedding, detector=detector)
                saved_model = LoadedSavedModel(folder, snapshot.classes)
                return [
                    _in_batches(saved_model.from_pixels, samples.pixels),
                    _in_batches(saved_model.from_bytes, samples.encoded),
                ]
            network = to_probability_network(snapshot.network, detector)
            model: LiteRTModel | OnnxModel
            if name == "onnx":
                write_onnx(network, path)
                model = OnnxModel(path)
            else:
                converter = make_litert_converter(
                    network, _LITERT_PRECISIONS[name], samples.calibration
                )
                path.write_bytes(converter.convert())
                model = LiteRTModel(path)
            return [_in_batches(model.from_pixels, samples.pixels)]
        except MemoryError:
            raise
        except Exception as error:
            # Converters raise errors of any class.
            reason = printable(first_line(error)[:200])
            raise UserError(
                f"{name} cannot hold the network {snapshot.network.name}: {reason}"
            ) from error


def _describe_losses(snapshot: Snapshot, samples: ExportSamples) -> str:
    """Describe where an int8 model loses most."""
    network = to_probability_network(snapshot.network)
    names = {layer.name for layer in snapshot.network._flatten_layers(include_self=False)}
    with _quiet():
        converter = make_litert_converter(network, "int8", samples.calibration)
        pixels = samples.pixels[:_BATCH_SIZE]
        return describe_largest_losses(converter, lambda: one_by_one(pixels), names)


def _in_batches(predict: Callable[[Any], np.ndarray], images: Any) -> np.ndarray:
    starts = range(0, len(images), _BATCH_SIZE)
    return np.concatenate([predict(images[start : start + _BATCH_SIZE]) for start in starts])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop the converters' pages of log, from stdout, where results go, and from stderr."""
    with (
        captured_stderr(),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have converters write temporary files into a folder: a killed export leaves nothing else."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        before, tempfile.tempdir = tempfile.tempdir, temporary
        try:
            yield
        finally:
            tempfile.tempdir = before


def _next_number(folder: Path) -> int:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)
