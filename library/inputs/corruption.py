"""An error while reading becomes one line: which shard, which record, which image."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from library.dataset.compression import open_records
from library.dataset.foreign_splits import RecordReader
from library.dataset.records import check_frames, read_frames, read_record
from library.errors import DataError, UserError, reason_of


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
    except tf.errors.ResourceExhaustedError:
        raise  # Reading everything again would not find a reason.
    except tf.errors.OpError as error:
        for each in sources:
            if each.failure:
                raise each.failure from error
            if found := each.find_corruption():
                raise DataError(found) from error
        raise


def find_failure(inputs: Iterable[Any]) -> UserError | None:
    """Return why some inputs can't be had any more, although data and network may be fine."""
    sources = (getattr(each, "source", None) for each in inputs)
    return next((each.failure for each in sources if each and each.failure), None)


def find_corrupt_record(
    counts: Mapping[str, int], class_count: int, is_multi_label: bool, repair_hint: str
) -> str | None:
    """Return one line that names the first record that is corrupt or does not decode, or None.

    Args:
        counts: {path: number of records} of the shards.
        class_count: Number of classes.
        is_multi_label: Whether images may have any number of classes.
        repair_hint: What to do about it, the end of the line.
    """
    try:
        for path, count in counts.items():
            check_frames(path, count)
        for path in counts:
            with Path(path).open("rb") as file:
                for offset, content in read_frames(file, path):
                    where = f"{path}: the record at byte {offset}"
                    record = read_record(content, where, multi_label=True)
                    if fault := record.find_fault(class_count, is_multi_label):
                        return f"{where}, made from {record.filename}, {fault}; {repair_hint}"
                    tf.io.decode_jpeg(record.encoded)
    except tf.errors.InvalidArgumentError:
        return (
            f"{where} is whole, but its image is not a JPEG that decodes; it was made from "
            f"{record.filename}; {repair_hint}"
        )
    except DataError as error:
        return f"{error}; {repair_hint}"
    except OSError as error:
        return (
            f"{error.filename or 'a shard'} can't be read any more ({reason_of(error)}): was the "
            "split removed or converted again? run the same command again to resume"
        )
    return None


def find_unusable_record(
    paths: Iterable[str], reader: RecordReader, repair_hint: str
) -> str | None:
    """Do as find_corrupt_record for TFRecord files of other programs.

    Args:
        paths: The files.
        reader: Reads their records.
        repair_hint: What to do about it, the end of the line.
    """
    try:
        for path in paths:
            with open_records(path) as file:
                for number, (_, content) in enumerate(read_frames(file, path)):
                    where = f"{path}: record {number}"
                    tf.io.decode_jpeg(reader.read(content, where).encoded)
    except tf.errors.InvalidArgumentError:
        return f"{where} is whole, but its image does not decode; {repair_hint}"
    except DataError as error:
        return f"{error}; {repair_hint}"
    except OSError as error:
        return f"{path} can't be read: {reason_of(error)}; {repair_hint}"
    return None
