"""Import TensorFlow without the messages that it writes whatever its settings are."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

from library.errors import UserError


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
    """
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    is_first = "tensorflow" not in sys.modules
    with contextlib.nullcontext() if verbose else captured_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        if is_first:
            # The imported objects stay: without this, each garbage collection takes 0.2 s longer.
            gc.freeze()
        if choose_devices is None or choose_devices():
            tf.config.list_logical_devices()


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Discard what is written to stderr within the block, by C++ too, unless the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except UserError:
            raise  # Its message says what is wrong.
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
