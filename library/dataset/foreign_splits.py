"""Splits that `train_metadata` and `eval_metadata` name: CSV files, or TFRecords of other programs.

They are trained on as they are. Each record becomes one of this project when it is read, with an
image as conversion would make it.
"""

import glob
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from library.dataset.file_index import FileIndex
from library.dataset.images import UnusableImageError
from library.dataset.locations import encode_pixels
from library.dataset.manifest import Manifest, Shard
from library.dataset.record_fields import (
    RecordClasses,
    RecordContent,
    RecordFields,
    read_field_names,
)
from library.dataset.record_index import IndexedFile, count_classes, index_files
from library.dataset.records import Record
from library.dataset.sources.base import NO_CLASS, TRAINING, expand_records, is_table
from library.dataset.sources.find import SourceOptions, find_files
from library.dataset.splits import sort_classes
from library.dataset.storage import is_remote
from library.dataset.unconverted import (
    SKIPPED_BY_CONVERSION,
    UNCONVERTED,
    UnconvertedSplit,
    check_known_classes,
    make_record,
)
from library.errors import DataError
from library.messages import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordReader:
    """Reads records of another program as this project's.

    Attributes:
        fields: Which fields hold what.
        classes: In the order of their ids.
    """

    fields: RecordFields
    classes: tuple[str, ...]

    def read(self, serialized: bytes, where: str = "") -> Record:
        """Return the record in a serialized Example. Raises DataError if it is unusable."""
        content = self.fields.read(serialized, where)
        labels = self._labels(content, where)
        texts = tuple(self.classes[each] for each in labels)
        label, text = (labels, texts) if self.fields.is_multi_label else (labels[0], texts[0])
        image: np.ndarray | bytes = content.image
        if content.shape:
            image = np.frombuffer(content.image, np.uint8).reshape(content.shape)
            if content.shape[2] == 4:
                image = encode_pixels(content.image, content.shape)
        try:
            return make_record(image, text, label, content.filename)
        except UnusableImageError as error:
            raise DataError(f"{where} {error}; {SKIPPED_BY_CONVERSION}") from None

    def labels(self, records: Iterable[bytes]) -> np.ndarray:
        """Return the class ids of serialized Examples with one class each, int64 (n,)."""
        contents = (self.fields.read(each, "") for each in records)
        return np.array([self._labels(each, "")[0] for each in contents], np.int64)

    def filename(self, serialized: bytes) -> bytes:
        """Return the file name in a record; empty if there is none."""
        name = self.fields.read(serialized, "").filename
        return name.encode("utf-8", "surrogateescape")

    def _labels(self, content: RecordContent, where: str) -> tuple[int, ...]:
        names = RecordClasses(self.fields).classes_of(content, where)
        if not set(names) <= set(self.classes) or not (names or self.fields.is_multi_label):
            raise DataError(f"{where} has the class {', '.join(names) or 'none'}, of no index")
        return tuple(sorted(map(self.classes.index, names)))


@dataclass(frozen=True)
class ForeignSplit(Manifest):
    """A split in TFRecord files of another program; a shard's `file` is a whole path.

    Attributes:
        reader: Reads its records.
        compressions: Of each shard, as tf.data calls it; "" for none.
    """

    reader: RecordReader = field(default_factory=lambda: RecordReader(RecordFields(), ()))
    compressions: tuple[str, ...] = ()

    @property
    def repair_hint(self) -> str:
        """What to do about a damaged file."""
        return "restore or remove the file"

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever an image, a label, the classes or the order changes."""
        # The same bytes are other images or labels in other fields.
        content = [super().fingerprint, sorted(self.reader.fields.names.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def describe(self) -> str:
        """Return one line about what is read."""
        files = counted(len(self.shards), "TFRecord file")
        return f"{self.name}: {counted(self.examples, 'image')} in {files}, read without conversion"


# A table, or the files of a split with what the index knows of them.
_Indexed = FileIndex | Mapping[Path, IndexedFile]


def read_foreign_splits(
    metadata: Mapping[str, Sequence[str]], options: SourceOptions, class_order: str
) -> dict[str, ForeignSplit | UnconvertedSplit]:
    """Return splits by their names, with the classes of the training split.

    Args:
        metadata: Split → a CSV file, or TFRecord files and patterns of them, local or at URLs. The
            training split is one of them.
        options: How to look for files, and which fields of records hold what.
        class_order: How `sort_classes` sorts the classes.

    Raises:
        DataError: Files are missing or unusable, or contradict each other about the classes.
        UserError: Files at a URL can't be downloaded.
    """
    fields = RecordFields(read_field_names(options.tfrecord_fields), options.is_multi_label)
    record_classes = RecordClasses(fields)
    indexed: dict[str, _Indexed] = {}
    counts: dict[str, Counter[str]] = {}
    for name, words in metadata.items():
        if any(_is_table(word) for word in words):
            indexed[name] = index = _index_table(words, name, options)
            counts[name] = index.counts
        else:
            indexed[name] = files = index_files(_expand(words), fields)
            counts[name], _ = count_classes(files, record_classes)
    record_classes.log_numbers(short_name(metadata[TRAINING]))
    classes = sort_classes(set(counts[TRAINING]) - {NO_CLASS}, class_order)
    splits: dict[str, ForeignSplit | UnconvertedSplit] = {}
    for name, found in indexed.items():
        where = short_name(metadata[name])
        check_known_classes(counts[name].keys() - {NO_CLASS}, classes, where)
        if isinstance(found, FileIndex):
            splits[name] = UnconvertedSplit(where, name, classes, found)
        else:
            class_counts = tuple(counts[name][each] for each in classes)
            splits[name] = _make_split(name, found, class_counts, RecordReader(fields, classes))
    _check_agreement(splits)
    return splits


def short_name(words: Sequence[str]) -> str:
    """Return one name for several files: that of the first, and how many more there are."""
    return words[0] + (f" and {len(words) - 1:,} more" if len(words) > 1 else "")


def _make_split(
    name: str,
    files: Mapping[Path, IndexedFile],
    class_counts: tuple[int, ...],
    reader: RecordReader,
) -> ForeignSplit:
    return ForeignSplit(
        folder=next(iter(files)).parent,
        name=name,
        classes=reader.classes,
        class_counts=class_counts,
        shards=tuple(
            Shard(str(path), each.examples, each.bytes, each.sha256) for path, each in files.items()
        ),
        settings=UNCONVERTED.to_json(),
        is_multi_label=reader.fields.is_multi_label,
        reader=reader,
        compressions=tuple(each.compression for each in files.values()),
    )


def _check_agreement(splits: Mapping[str, Any]) -> None:
    if len({each.is_multi_label for each in splits.values()}) > 1:
        raise DataError(
            "only one of train_metadata and eval_metadata is multi-label: use --multi_label for "
            "TFRecords and --label_separator for CSV files"
        )
    paths = [{*each.paths} for each in splits.values() if isinstance(each, ForeignSplit)]
    if len(paths) > 1 and (shared := set.intersection(*paths)):
        logger.warning(f"train_metadata and eval_metadata share files, such as {min(shared)}")


def _is_table(word: str) -> bool:
    # A table's set may follow its name.
    return is_table(Path(word)) or is_table(Path(word).parent)


def _index_table(words: Sequence[str], split: str, options: SourceOptions) -> FileIndex:
    """Return the files of CSV files: those of the split, if they name any, or else all."""
    words = [each for word in words for each in sorted(glob.glob(word)) or [word]]  # noqa: PTH207
    try:
        rows = (find_files(f"{each}/{split}", options) for each in words)
        return FileIndex(chain.from_iterable(rows))
    except DataError as error:
        # Without sets, all rows are of this split.
        try:
            return FileIndex(chain.from_iterable(find_files(each, options) for each in words))
        except DataError:
            raise error from None


def _expand(words: Sequence[str]) -> list[Path]:
    """Return the files that words name, sorted: paths, patterns and URLs."""
    found: list[Path] = []
    for word in words:
        if is_remote(word):
            from library.dataset.remote_splits import fetch_files

            found += fetch_files(word)
            continue
        path = Path(word)
        matches = [path] if path.is_file() else expand_records(path)
        if not matches:
            raise DataError(f"there are no files {word}")
        if folder := next((each for each in matches if each.is_dir()), None):
            raise DataError(f"{folder} is a folder; name the TFRecord files in it: {folder}/*")
        found += matches
    # By name: where a download lies differs between machines.
    return sorted(dict.fromkeys(each.absolute() for each in found), key=lambda path: path.name)
