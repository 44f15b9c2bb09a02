"""A snapshot → a numbered folder of exports, each loaded again and compared before it is there."""

import contextlib
import importlib.util
import io
import json
from pathlib import Path

import keras
import numpy as np

from library.errors import SettingsError, UserError, first_line, printable
from library.export.litert import LiteRTModel, convert_litert
from library.export.model_card import write_card
from library.export.onnx import OnnxModel, write_onnx
from library.export.saved_model import ServedModel, write_saved_model
from library.files import new_folder, seal_folder
from library.messages import counted
from library.models.scores import is_multi_label
from library.prediction.predictor import Predictor
from library.tensorflow_import import captured_stderr

FORMATS = ("saved_model", "litert", "litert_float16", "litert_int8", "onnx")
_LITERT = {
    "litert": ("model.tflite", "float32"),
    "litert_float16": ("model_float16.tflite", "float16"),
    "litert_int8": ("model_int8.tflite", "int8"),
}
# The largest difference of a probability from the snapshot's.
_TOLERANCES = {"saved_model": 1e-5, "litert": 1e-4, "onnx": 1e-4}
# Where numbers are coarser: how many of the images must get the same class.
_AGREEMENT = 0.98
_NEEDED = {
    "litert": (("ai_edge_litert",), "litert"),
    "onnx": (("tf2onnx", "onnxruntime"), "onnx"),
}


def check_formats(formats, *, embedding=False):
    """Raise SettingsError for a format that is unknown, or whose packages are not installed.

    With `embedding`, for those too that give probabilities alone; and where there is no format.
    """
    if not formats:
        raise SettingsError(f"export_formats is empty: name some of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise SettingsError(f"unknown export format {name!r} (known: {', '.join(FORMATS)})")
        if embedding and name != "saved_model":
            raise SettingsError(
                f"export_formats {name} gives no embedding, saved_model does: add --no_embedding"
            )
        packages, extra = _NEEDED.get(name.split("_")[0], ((), ""))
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise SettingsError(
                    f"export_formats {name} needs the package {package}: pip install '.[{extra}]'"
                )


def export(snapshot, folder, formats, samples, temperature=None, *, embedding=False):
    """Write `<folder>/<next number>/` with all formats, whole or not at all.

    Returns its path, and for each format how far it is from the snapshot (see `compare`).
    `snapshot` is compared with what was written, and `temperature` is told. With `embedding` a
    SavedModel gives that, too. Raises UserError where a format can't hold the network, or gives
    other probabilities.
    """
    reference = Predictor([snapshot]).probabilities(samples.pixels)
    path = Path(folder) / str(_next_number(folder))
    with new_folder(path) as partial:
        compared = {}
        for name in formats:
            options = {"embedding": True} if embedding else {}
            answers = _export_one(name, partial, snapshot, samples, **options)
            compared[name] = [
                compare(name, found, reference, multi_label=is_multi_label(snapshot.network))
                for found in answers
            ][-1]
        texts = [printable(each) + "\n" for each in snapshot.classes]
        (partial / "classes.txt").write_text("".join(texts), encoding="utf-8")
        (partial / "classes.json").write_text(json.dumps(snapshot.classes, ensure_ascii=False))
        card = write_card(snapshot, path, compared, samples, temperature, embedding=embedding)
        (partial / "README.md").write_text(card, encoding="utf-8")
        seal_folder(partial)
    return path, compared


def _export_one(name, folder, snapshot, samples, **options):
    """Write one format; give what it answers when loaded again, for each way of asking it."""
    # A UserError within the block is all that is told: the converters' logs are long.
    with _quietly():
        try:
            return _EXPORTS[name.split("_")[0]](name, folder, snapshot, samples, **options)
        except MemoryError:
            raise
        except Exception as error:
            # Whatever a converter finds wrong.
            reason = printable(first_line(error)[:200])
            raise UserError(
                f"{name} can't hold the network {snapshot.network.name}: {reason}"
            ) from error


def compare(name, found, reference, *, multi_label=False):
    """Give {"difference", "agreement"} of probabilities (n, classes) with the snapshot's.

    Images agree that get the same class, or with `several` the same set of classes. Raises
    UserError where they are too far apart.
    """
    if multi_label:
        same = ((found >= 0.5) == (reference >= 0.5)).all(1)
    else:
        same = found.argmax(1) == reference.argmax(1)
    agreement = float(same.mean())
    difference = float(np.abs(found - reference).max())
    if name in _TOLERANCES and not difference <= _TOLERANCES[name]:
        raise UserError(
            f"{name} gives other probabilities than the snapshot, by up to {difference:.2g} where "
            f"{_TOLERANCES[name]:g} is allowed: nothing was exported"
        )
    if not agreement >= _AGREEMENT or np.isnan(difference):
        word = "classes" if multi_label else "class"
        raise UserError(
            f"{name} gives the snapshot's {word} for {agreement:.1%} of "
            f"{counted(len(found), 'image')}, where {_AGREEMENT:.0%} are wanted: nothing was "
            "exported"
        )
    return {"difference": difference, "agreement": agreement}


def probabilities_of(snapshot):
    """Return a network of float32 pixels that ends with probabilities, not scores."""
    last = "sigmoid" if is_multi_label(snapshot.network) else "softmax"
    return keras.Sequential(
        [
            keras.Input(snapshot.network.input_shape[1:], name="pixels"),
            snapshot.network,
            keras.layers.Activation(last, dtype="float32", name="probabilities"),
        ]
    )


def _export_saved_model(name, folder, snapshot, samples, *, embedding=False):
    write_saved_model(folder, snapshot, embedding=embedding)
    served = ServedModel(folder, snapshot.classes)
    return [
        _in_batches(served.from_pixels, samples.pixels),
        _in_batches(served.from_bytes, samples.encoded),
    ]


def _export_litert(name, folder, snapshot, samples):
    file, precision = _LITERT[name]
    network = probabilities_of(snapshot)
    (folder / file).write_bytes(convert_litert(network, precision, samples.calibration))
    return [_in_batches(LiteRTModel(folder / file).from_pixels, samples.pixels)]


def _export_onnx(name, folder, snapshot, samples):
    write_onnx(probabilities_of(snapshot), folder / "model.onnx")
    return [_in_batches(OnnxModel(folder / "model.onnx").from_pixels, samples.pixels)]


_EXPORTS = {"saved": _export_saved_model, "litert": _export_litert, "onnx": _export_onnx}


def _in_batches(predict, images, size=32):
    parts = [predict(images[start : start + size]) for start in range(0, len(images), size)]
    return np.concatenate(parts)


@contextlib.contextmanager
def _quietly():
    """Keep the converters' pages of log from stdout, where results go, and from stderr."""
    with captured_stderr(), contextlib.redirect_stdout(io.StringIO()):
        yield


def _next_number(folder):
    folder = Path(folder)
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    return 1 + max((int(each) for each in names if each.isdecimal()), default=0)
