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


@pytest.mark.slow
def test_import_is_silent_and_leaves_stderr():
    done = run(
        "import sys; from library.tensorflow_import import import_tensorflow; import_tensorflow()\n"
        "import tensorflow as tf; print(int(tf.constant(2) + 3)); print('heard', file=sys.stderr)"
    )
    assert (done.stdout, done.stderr) == ("5\n", "heard\n")


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
