"""Import TensorFlow and Keras quietly, and as this project needs them, whatever the environment."""

import atexit
import contextlib
import gc
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from library.errors import SettingsError, UserError, first_line, printable
from library.messages import shown

logger = logging.getLogger(__name__)

# Variables that change what Keras is, and the values that this project needs (None: not set).
_VARIABLES: dict[str, str | None] = {
    "KERAS_BACKEND": "tensorflow",
    "TF_USE_LEGACY_KERAS": None,
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "KERAS_NNX_ENABLED": None,
}
# What Keras reads from its file keras.json.
_KERAS_JSON: dict[str, Any] = {
    "backend": "tensorflow",
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "nnx_enabled": False,
}
# Packages that Keras and TensorFlow import if they can, for what no command uses: scikit-learn
# wrappers, galleries of images, data frames, sparse matrices, notebooks. Where they are installed,
# they are a third of the time that the import takes.
_UNUSED = ("IPython", "cv2", "matplotlib", "pandas", "scipy", "sklearn")


def import_tensorflow(
    verbose: bool = False, choose_devices: Callable[[], bool] | None = None
) -> None:
    """Import TensorFlow and Keras and start the devices.

    TensorFlow's libraries log before they read TF_CPP_MIN_LOG_LEVEL, and straight to the file
    descriptor of stderr. So that descriptor is redirected meanwhile; if the import fails, the
    messages are shown after all.

    Args:
        verbose: Whether to show TensorFlow's messages.
        choose_devices: Called after the import; it returns whether to start the devices now.

    Raises:
        SettingsError: keras.json is invalid, or Keras was imported with another backend.
    """
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        for name in ("absl", "tensorflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
    is_first = "tensorflow" not in sys.modules
    with contextlib.nullcontext() if verbose else captured_stderr():
        with _fast_imports() if is_first else contextlib.nullcontext():
            overridden = _import_keras()
            import tensorflow as tf
        if choose_devices is None or choose_devices():
            tf.config.list_logical_devices()
    for line in overridden:
        logger.warning(line)


def set_up_keras() -> None:
    """Import Keras with TensorFlow as its backend, channels last and float32; log what differed.

    The rooms that build on Keras call it when they are imported, for those who use the library
    without a command.

    Raises:
        SettingsError: keras.json is invalid, or Keras was imported with another backend.
    """
    if "keras" in sys.modules:
        _import_keras()
        return
    with captured_stderr():
        overridden = _import_keras()
    for line in overridden:
        logger.warning(line)


def import_keras_hub(subject: str) -> Any:
    """Import keras-hub, an optional package that takes seconds to import, and return it.

    Args:
        subject: What needs it, for the message.

    Raises:
        SettingsError: It is not installed, or its packages do not fit each other.
    """
    try:
        with captured_stderr():
            import keras_hub
    except ImportError as error:
        reason = "" if error.name == "keras_hub" else f", which needs others ({first_line(error)})"
        raise SettingsError(
            f"{subject} needs the package keras_hub{reason}: pip install '.[presets]'"
        ) from error
    return keras_hub


def _import_keras() -> list[str]:
    """Import Keras as this project needs it, and return a line for each thing that differed."""
    is_first = "keras" not in sys.modules
    path = _keras_json_path()
    overridden = [*_override_variables(), *_find_differing(path)] if is_first else []
    try:
        import keras
    except ValueError as error:
        raise SettingsError(f"{path}: {first_line(error)}; correct or delete the file") from None
    if keras.config.backend() != "tensorflow":
        raise SettingsError(
            f"keras was imported with the backend {keras.config.backend()} before; set "
            "KERAS_BACKEND=tensorflow in the environment"
        )
    keras.config.set_floatx(_KERAS_JSON["floatx"])
    keras.config.set_epsilon(_KERAS_JSON["epsilon"])
    keras.config.set_image_data_format(_KERAS_JSON["image_data_format"])
    return overridden


@contextlib.contextmanager
def _fast_imports() -> Iterator[None]:
    """Import without garbage collections, and as if the packages in _UNUSED were not installed."""
    modules: dict[str, Any] = sys.modules
    # Python's import system takes None for a module that can't be found.
    hidden = [name for name in _UNUSED if name not in modules]
    modules.update(dict.fromkeys(hidden))
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
        # The imported objects stay: without this, each garbage collection takes 0.2 s longer.
        gc.freeze()
        gc.enable()
        # Nor is anything collected at the end of the process, which would take as long.
        atexit.register(gc.freeze)


def _override_variables() -> Iterator[str]:
    for name, needed in _VARIABLES.items():
        found = os.environ.pop(name, "")
        if needed:
            os.environ[name] = needed
        if found.lower() not in ("", "0", "false", needed):
            instead = f"{needed} is used" if needed else "it would change what Keras does"
            yield f"the environment variable {name}={printable(found)} is ignored: {instead}"


def _keras_json_path() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path("~/.keras").expanduser()) / "keras.json"


def _find_differing(path: Path) -> Iterator[str]:
    """Yield a line for each value of keras.json that this project needs otherwise.

    Raises:
        SettingsError: The file is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # Keras does without it, too.
    if not isinstance(found, dict):
        raise SettingsError(f"{path} must hold a JSON object; correct or delete the file")
    for name, needed in _KERAS_JSON.items():
        if (value := found.get(name, needed)) != needed:
            yield f"{name} {shown(value)} in {path} is ignored: {needed} is used"


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Discard what is written to stderr within the block, by C++ too, unless the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except (UserError, KeyboardInterrupt):
            raise  # What is wrong is clear.
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
