"""An error while reading becomes one line: which shard, which record, which image."""

import contextlib
from pathlib import Path

import tensorflow as tf

from library.dataset.records import read_frames, read_record
from library.errors import DataError


@contextlib.contextmanager
def explain_read_errors(*inputs):
    """Turn TensorFlow's errors inside the block into a DataError that names what is damaged.

    `inputs` have a `source`, which knows how to look for damage.
    """
    with explain_source_errors(each.source for each in inputs):
        yield


@contextlib.contextmanager
def explain_source_errors(sources):
    """Do so for sources of examples themselves.

    Where nothing is found, the error was about something else, and is left alone.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for each in sources:
            if found := each.find_corruption():
                raise DataError(found) from error
        raise


def find_corrupt_record(paths, repair_hint="convert again"):
    """Return a line that names the first record that is damaged or does not decode, or None.

    `repair_hint` says what to do about it.
    """
    try:
        for path in paths:
            with Path(path).open("rb") as file:
                for offset, content in read_frames(file, path):
                    where = f"{path}: the record at byte {offset}"
                    _check_decodes(read_record(content, where), where)
    except (OSError, DataError) as error:
        return f"{error}; {repair_hint}" if isinstance(error, DataError) else str(error)
    return None


def _check_decodes(record, where):
    try:
        tf.io.decode_jpeg(record.encoded)
    except tf.errors.InvalidArgumentError:
        raise DataError(
            f"{where} is whole, but its image is no JPEG that decodes; it was made from "
            f"{record.filename}"
        ) from None
