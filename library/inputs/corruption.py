"""An error while reading becomes one line: which shard, which record, which image."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from library.dataset.records import read_frames, read_record
from library.errors import DataError


@contextlib.contextmanager
def explain_read_errors(*inputs: Any) -> Iterator[None]:
    """Replace TensorFlow's errors inside the block by a DataError that names what is corrupt.

    `inputs` are TrainingInputs or EvaluationInputs.
    """
    with explain_source_errors(each.source for each in inputs):
        yield


@contextlib.contextmanager
def explain_source_errors(sources: Iterable[Any]) -> Iterator[None]:
    """Do the same for example sources.

    An error stays as it is if no source finds anything corrupt: it has another reason.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for each in sources:
            if found := each.find_corruption():
                raise DataError(found) from error
        raise


def find_corrupt_record(paths: Iterable[str | Path], repair_hint: str) -> str | None:
    """Return one line that names the first record that is corrupt or does not decode, or None.

    Args:
        paths: The shards.
        repair_hint: What to do about it, the end of the line.
    """
    try:
        for path in paths:
            with Path(path).open("rb") as file:
                for offset, content in read_frames(file, path):
                    where = f"{path}: the record at byte {offset}"
                    record = read_record(content, where, multi_label=True)
                    tf.io.decode_jpeg(record.encoded)
    except tf.errors.InvalidArgumentError:
        return (
            f"{where} is whole, but its image is not a JPEG that decodes; it was made from "
            f"{record.filename}; {repair_hint}"
        )
    except DataError as error:
        return f"{error}; {repair_hint}"
    except OSError as error:
        return str(error)
    return None
