"""TensorFlow and Keras are imported quietly, and as the project needs them."""

import json
import os
import subprocess
import sys

import pytest


def run(code, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment, **variables},
    )


def test_failed_import_shows_captured_messages(tmp_path):
    (tmp_path / "keras.py").write_text(
        "import os; os.write(2, b'a library is missing\\n'); raise ImportError('no keras')"
    )
    done = run(
        "from library.tensorflow_import import import_tensorflow; import_tensorflow()",
        PYTHONPATH=str(tmp_path),
    )
    assert "a library is missing\n" in done.stderr
    assert "ImportError: no keras" in done.stderr


SETTLED = """
from library.logging import start_logging; start_logging()
IMPORT
import keras, tensorflow as tf
print(keras.config.backend(), keras.config.floatx(), keras.config.image_data_format())
print(keras.config.epsilon(), keras.config.max_epochs(), tf.keras.__version__[0])
"""
NEEDED = "tensorflow float32 channels_last\n1e-07 None 3\n"
# What the import leaves out can be imported afterwards, and garbage collection is on again.
UNUSED = """
import gc
names = "cv2", "matplotlib.pyplot", "pandas", "scipy", "sklearn"
print([name for name in names if name in sys.modules], gc.isenabled(), end=" ")
import cv2, matplotlib.pyplot
print(None in sys.modules.values())
"""
OTHER = {
    "KERAS_BACKEND": "torch",
    "TF_USE_LEGACY_KERAS": "1",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_NNX_ENABLED": "true",
}


@pytest.mark.slow
def test_environment_and_keras_json_are_overridden_and_named(tmp_path):
    other = {"floatx": "float16", "backend": "jax", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps({**other, "epsilon": 1e-3}))
    code = SETTLED.replace("IMPORT", "import library.models.blocks")
    done = run(code, KERAS_HOME=str(tmp_path), **OTHER)
    assert done.stdout == NEEDED
    lines = done.stderr.splitlines()
    named = [*(f"{name}={value}" for name, value in OTHER.items()), *other.values(), "0.001"]
    # KERAS_BACKEND overrides the backend of the file.
    assert len(lines) == len(named)
    for word in named:
        assert any(word in line and line.startswith("warning: ") for line in lines), word


@pytest.mark.slow
def test_import_is_silent_and_leaves_stderr(tmp_path):
    statement = "from library.tensorflow_import import import_tensorflow; import_tensorflow()"
    code = f"{SETTLED.replace('IMPORT', statement)}import sys; print('heard', file=sys.stderr)"
    done = run(f"{code}\n{UNUSED}", KERAS_HOME=str(tmp_path))
    assert (done.stdout, done.stderr) == (f"{NEEDED}[] True False\n", "heard\n")


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"floatx": "float128"}', "[1]"])
def test_invalid_keras_json_is_refused(tmp_path, content):
    (tmp_path / "keras.json").write_text(content)
    done = run(
        "from library.errors import run_main\n"
        "from library.tensorflow_import import import_tensorflow\n"
        "raise SystemExit(run_main(lambda _: import_tensorflow(), [], 'x.py'))",
        KERAS_HOME=str(tmp_path),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"x.py: error: {tmp_path / 'keras.json'}")
    assert done.stderr.count("\n") == 1
