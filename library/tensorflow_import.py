"""TensorFlow's import without the messages that it writes past every setting of its own."""

import contextlib
import gc
import os
import sys
import tempfile

from library.errors import UserError


def import_tensorflow(verbose=False, choose_devices=None):
    """Import TensorFlow and Keras and start the devices. Quietly, unless `verbose`.

    `choose_devices` is called between the two, if given; it may leave the start to others by giving
    False.

    TensorFlow's libraries log before they read TF_CPP_MIN_LOG_LEVEL, straight to the file
    descriptor of stderr. So that one is turned aside meanwhile; if importing fails, what they said
    is shown after all.
    """
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    is_first = "tensorflow" not in sys.modules
    with contextlib.nullcontext() if verbose else captured_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        if is_first:
            # What they brought stays for good: to go through it takes 0.2 s, again and again.
            gc.freeze()
        if choose_devices is None or choose_devices() is not False:
            tf.config.list_logical_devices()


@contextlib.contextmanager
def captured_stderr():
    """Keep what anyone writes to stderr within the block to ourselves, unless the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except UserError:
            raise  # says itself what is wrong
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
