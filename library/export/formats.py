"""The formats of an export, and what each of them needs."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from library.errors import SettingsError


@dataclass(frozen=True)
class ExportFormat:
    """A format of an export.

    Attributes:
        file: The file that holds the model, or its graph.
        tolerance: The largest difference between a probability and the snapshot's; None if only the
            classes are compared, because the precision is lower.
        extra: The extra of pyproject.toml that brings `packages`.
        packages: The packages that the format needs.
    """

    file: str
    tolerance: float | None
    extra: str = ""
    packages: tuple[str, ...] = ()


_LITERT = ("litert", ("ai_edge_litert",))
FORMATS = {
    "saved_model": ExportFormat("saved_model.pb", 1e-5),
    "litert": ExportFormat("model.tflite", 1e-4, *_LITERT),
    "litert_float16": ExportFormat("model_float16.tflite", None, *_LITERT),
    "litert_int8": ExportFormat("model_int8.tflite", None, *_LITERT),
    "onnx": ExportFormat("model.onnx", 1e-4, "onnx", ("tf2onnx", "onnxruntime")),
}


def check_formats(names: Sequence[str], *, embedding: bool = False) -> None:
    """Raise SettingsError for an unknown format, or one whose packages are not installed.

    Args:
        names: The names of formats.
        embedding: Whether embeddings are to be exported, which only SavedModel can return.
    """
    if not names:
        raise SettingsError(f"export_formats is empty; choose from {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise SettingsError(f"unknown export format {name!r} (known: {', '.join(FORMATS)})")
        if embedding and name != "saved_model":
            raise SettingsError(
                f"export format {name} has no embedding, only saved_model has; add --no_embedding"
            )
        for package in FORMATS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise SettingsError(
                    f"export format {name} needs the package {package}: "
                    f"pip install '.[{FORMATS[name].extra}]'"
                )
