"""The fields of a record, its bytes in a TFRecord file, and how both are read back.

A record is a serialized tf.train.Example inside the framing of a TFRecord file. Both are written
without TensorFlow, which takes seconds to import. Examples are read through google.protobuf, but
written by hand: it copies large fields so often that storing an image took a quarter longer.
"""

import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from gzip import GzipFile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import google_crc32c

from library.dataset.jpeg import (
    MAX_DECODABLE_PIXELS,
    MAX_PIXELS_PER_BYTE,
    read_jpeg_header,
)
from library.errors import DataError, reason_of
from library.messages import counted

if TYPE_CHECKING:
    import tensorflow as tf

ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
# A TFRecord is: length (8 bytes), CRC of the length (4), the record, CRC of the record (4).
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
FRAMING_BYTES = _HEADER.size + _FOOTER.size
# The largest record that is read: it is in memory as a whole, and one with an image is smaller.
_MAX_RECORD_BYTES = 1 << 30
_BYTES = [bytes([value]) for value in range(256)]


@dataclass(frozen=True, slots=True)
class Record:
    """One stored image. With several classes per image, label and text are tuples."""

    encoded: bytes
    height: int
    width: int
    label: int | tuple[int, ...]
    text: str | tuple[str, ...]
    filename: str

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels, as a tuple."""
        return self.label if isinstance(self.label, tuple) else (self.label,)

    def find_fault(self, class_count: int, is_multi_label: bool) -> str | None:
        """Return which field contradicts the manifest or the image, in a few words, or None."""
        if not is_multi_label and len(self.labels) != 1:
            return f"has {len(self.labels)} labels, not one"
        for label in self.labels:
            if not 0 <= label < class_count:
                return f"has the label {label}, which is no class's"
        header = read_jpeg_header(self.encoded)
        if header is None or (header.width, header.height) != (self.width, self.height):
            return f"is not a JPEG of {self.width}x{self.height} pixels"
        limit = min(MAX_DECODABLE_PIXELS, MAX_PIXELS_PER_BYTE * len(self.encoded))
        if self.width * self.height >= limit:
            return (
                f"claims {self.width}x{self.height} pixels; fewer than {limit:,} can be decoded "
                f"from {len(self.encoded):,} bytes"
            )
        return None

    @property
    def texts(self) -> tuple[str, ...]:
        """The names of all classes, as a tuple."""
        return self.text if isinstance(self.text, tuple) else (self.text,)


_FIELDS = {
    "encoded": (ENCODED, bytes),
    "height": (HEIGHT, int),
    "width": (WIDTH, int),
    "label": (LABEL, int),
    "text": (TEXT, bytes),
    "filename": (FILENAME, bytes),
}


def parse_record(
    serialized: "tf.Tensor", keys: Sequence[str] = tuple(_FIELDS)
) -> "dict[str, tf.Tensor]":
    """Parse a record inside tf.data.

    Args:
        serialized: A scalar string tensor.
        keys: Any of encoded, text, filename (string), height, width, label (int64): scalars. Or
            `labels` instead of `label`: int64 (n,), all classes of an image. Fewer are faster.
    """
    import tensorflow as tf  # imported late: conversion never needs TensorFlow

    types = {bytes: tf.string, int: tf.int64}
    wanted = {key: _FIELDS[key] for key in keys if key != "labels"}
    features = {name: tf.io.FixedLenFeature((), types[kind]) for name, kind in wanted.values()}
    if "labels" in keys:
        wanted["labels"] = (LABEL, int)
        features[LABEL] = tf.io.FixedLenSequenceFeature((), tf.int64, allow_missing=True)
    parsed = tf.io.parse_single_example(serialized, features)
    return {key: parsed[name] for key, (name, _) in wanted.items()}


def parse_labels(serialized: "tf.Tensor") -> "tf.Tensor":
    """Return int64 (n,) labels from a string tensor (n,) of records, inside tf.data."""
    import tensorflow as tf

    return tf.io.parse_example(serialized, {LABEL: tf.io.FixedLenFeature((), tf.int64)})[LABEL]


def serialize(record: Record) -> bytes:
    """Return a Record as the bytes of a serialized tf.train.Example."""
    return b"".join(_serialize(record))


def frame(record: Record) -> bytes:
    """Return a Record as bytes of a TFRecord file: length, serialized Example, and their CRCs."""
    pieces = _serialize(record)
    size, crc = sum(map(len, pieces)), 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    header = _HEADER.pack(size, _masked_crc(size.to_bytes(8, "little")))
    return b"".join((header, *pieces, _FOOTER.pack(_mask(crc))))


def _serialize(record: Record) -> list[bytes]:
    """Return the pieces of a serialized Example; the image is one of them, not copied."""
    filename = _to_bytes(record.filename)
    # In the order of the names, so that equal records are equal bytes.
    before = _int_feature(LABEL, *record.labels) + _text_feature(TEXT, *record.texts)
    before += _before_bytes(ENCODED, len(record.encoded))
    after = _before_bytes(FILENAME, len(filename)) + filename + _text_feature(FORMAT, "JPEG")
    after += _int_feature(HEIGHT, record.height) + _int_feature(WIDTH, record.width)
    size = len(before) + len(record.encoded) + len(after)
    return [_key(1, size), before, record.encoded, after]


def _before_bytes(name: str, size: int) -> bytes:
    """Return what stands before the only value, of `size` bytes, of an entry of Features.feature.

    The entry is the name (1) and the Feature (2), that is a BytesList (1) of values (1).
    """
    head = b""
    for field in (1, 1, 2):
        head = _key(field, len(head) + size) + head
    head = _name(name) + head
    return _key(1, len(head) + size) + head


# Labels, classes and sizes are often the same.
@lru_cache(maxsize=4096)
def _text_feature(name: str, *texts: str) -> bytes:
    content = b"".join(_message(1, _to_bytes(text)) for text in texts)
    return _message(1, _name(name) + _message(2, _message(1, content)))


@lru_cache(maxsize=4096)
def _int_feature(name: str, *values: int) -> bytes:
    # A negative number is its two's complement in 64 bits.
    content = b"".join(_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values)
    # Protobuf leaves out an empty list of packed numbers.
    feature = _message(3, _message(1, content) if content else b"")
    return _message(1, _name(name) + _message(2, feature))


@lru_cache
def _name(name: str) -> bytes:
    return _message(1, name.encode())


def _message(field: int, content: bytes) -> bytes:
    """Return the content as a field of protobuf's wire type 2."""
    return _key(field, len(content)) + content


def _key(field: int, size: int) -> bytes:
    """Return what stands before `size` bytes as a field of protobuf's wire type 2."""
    return _BYTES[field << 3 | 2] + _varint(size)


def _varint(value: int) -> bytes:
    """Return a number in groups of 7 bits, the lowest first."""
    if value < 0x80:
        return _BYTES[value]
    return _BYTES[value & 0x7F | 0x80] + _varint(value >> 7)


def is_frame(content: bytes) -> bool:
    """Return whether bytes are the first HEADER_BYTES of a record in a TFRecord file."""
    return len(content) == _HEADER.size and _masked_crc(content[:8]) == _HEADER.unpack(content)[1]


def read_frames(file: BinaryIO | GzipFile, where: object) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, serialized Example) of each record of an open TFRecord file.

    Raises DataError, naming `where` and the record, at the first damaged or truncated one.
    """
    offset = number = 0
    file_size: float = math.inf
    if file.seekable():
        file_size = file.seek(0, os.SEEK_END)
        file.seek(0)
    while header := file.read(_HEADER.size):
        here = f"{where}: record {number} (at byte {offset})"
        if len(header) < _HEADER.size:
            raise DataError(f"{here} is truncated")
        length, length_crc = _HEADER.unpack(header)
        # Checked before reading: a damaged length could ask for exabytes.
        if _masked_crc(header[:8]) != length_crc:
            raise DataError(f"{here} is damaged: its length fails its checksum")
        # A length with the right checksum can be as wrong.
        if length > min(file_size - offset - FRAMING_BYTES, _MAX_RECORD_BYTES):
            raise DataError(f"{here} is truncated")
        body = file.read(length + _FOOTER.size)
        if len(body) < length + _FOOTER.size:
            raise DataError(f"{here} is truncated")
        content = body[:length]
        if _masked_crc(content) != _FOOTER.unpack(body[length:])[0]:
            raise DataError(f"{here} is damaged: its content fails its checksum{_source(content)}")
        yield offset, content
        offset += FRAMING_BYTES + length
        number += 1


def check_frames(path: str | Path, count: int) -> None:
    """Check that a TFRecord file is framed as `count` records, without reading them.

    TensorFlow reserves as much memory as a record claims to need, and crashes if there is not so
    much.

    Raises:
        DataError: It is not, or it can't be read.
    """
    offset = number = 0
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            while offset < size:
                header = os.pread(handle, _HEADER.size, offset)
                here, number = f"{path}: record {number} (at byte {offset})", number + 1
                if len(header) < _HEADER.size:
                    raise DataError(f"{here} is truncated")
                # Otherwise a damaged length would be blamed on the record after it.
                if not is_frame(header):
                    raise DataError(f"{here} is damaged: its length fails its checksum")
                offset += _HEADER.unpack(header)[0] + FRAMING_BYTES
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    if offset > size:
        raise DataError(f"{here} is longer than the file")
    if number != count:
        raise DataError(f"{path} has {counted(number, 'record')}, the manifest lists {count:,}")


def read_record(serialized: bytes, where: object, *, multi_label: bool = False) -> Record:
    """Return the Record in a serialized Example. Raises DataError for a missing or wrong field.

    Args:
        serialized: The Example.
        where: What error messages call it.
        multi_label: Make label and text tuples, of any length.
    """
    fields = Fields(serialized, where)
    return Record(
        encoded=fields.get_bytes(ENCODED),
        height=fields.get_int(HEIGHT),
        width=fields.get_int(WIDTH),
        label=fields.get_ints(LABEL) if multi_label else fields.get_int(LABEL),
        text=fields.get_texts(TEXT) if multi_label else to_text(fields.get_bytes(TEXT)),
        filename=to_text(fields.get_bytes(FILENAME)),
    )


class Fields:
    """The fields of any serialized Example by name. All methods raise DataError, naming `where`."""

    def __init__(self, serialized: bytes, where: object) -> None:
        from google.protobuf.message import DecodeError

        self._where = where
        try:
            self._features = _example_class().FromString(serialized).features.feature
        except DecodeError as error:
            raise self._error(f"is not a tf.train.Example: {error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def get_bytes(self, name: str) -> bytes:
        """Return the only value of a field of bytes."""
        return self._only(name, "bytes_list")

    def get_int(self, name: str) -> int:
        """Return the only value of a field of integers."""
        return self._only(name, "int64_list")

    def get_ints(self, name: str) -> tuple[int, ...]:
        """Return all values of a field of integers."""
        return tuple(self._values(name, "int64_list"))

    def get_texts(self, name: str) -> tuple[str, ...]:
        """Return all values of a field of bytes, as text."""
        return tuple(map(to_text, self._values(name, "bytes_list")))

    def get_values(self, name: str) -> tuple[Any, ...]:
        """Return all values of a field: bytes, integers or floats. An absent field has none."""
        if name not in self._features:
            return ()
        feature = self._features[name]
        kind = feature.WhichOneof("kind")
        return tuple(getattr(feature, kind).value) if kind else ()

    def describe(self) -> str:
        """Return the names of all fields, with the kind of their values."""
        kinds = ((name, each.WhichOneof("kind")) for name, each in self._features.items())
        names = (
            f"{name} ({kind.removesuffix('_list') if kind else 'empty'})" for name, kind in kinds
        )
        return ", ".join(sorted(names)) or "none"

    def _only(self, name: str, kind: str) -> Any:
        values = self._values(name, kind)
        if len(values) != 1:
            raise self._error(f"has {len(values)} values in the field {name}, not one")
        return values[0]

    def _values(self, name: str, kind: str) -> Any:
        if name not in self._features:
            raise self._error(f"has no field {name}")
        feature = self._features[name]
        if feature.WhichOneof("kind") != kind:
            raise self._error(f"has no {kind} in the field {name}")
        return getattr(feature, kind).value

    def _error(self, text: str) -> DataError:
        return DataError(f"{self._where} {text}")


def to_text(content: bytes) -> str:
    """Return bytes as text. File names that are not UTF-8 survive the way there and back."""
    return content.decode("utf-8", "surrogateescape")


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _source(content: bytes) -> str:
    """Name the source image of a damaged record, if its name can still be read."""
    try:
        filename = Fields(content, "").get_bytes(FILENAME)
    except DataError:
        return ""
    return f"; it was made from {filename.decode('utf-8', 'replace')}"


def _masked_crc(content: bytes) -> int:
    return _mask(google_crc32c.value(content))


def _mask(crc: int) -> int:
    # TFRecord rotates and offsets its CRC-32C: the CRC of data that holds its own CRC is weak.
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# tensorflow/core/example/example.proto and feature.proto, as far as they matter.
_EXAMPLE_PROTO = """
name: "example.proto" package: "x" syntax: "proto3"
message_type { name: "Bytes"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Float"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Ints"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type_name: ".x.Bytes" oneof_index: 0 }
  field { name: "float_list" number: 2 label: LABEL_OPTIONAL type_name: ".x.Float" oneof_index: 0 }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type_name: ".x.Ints" oneof_index: 0 } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type_name: ".x.Features.FeatureEntry" }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type_name: ".x.Feature" } } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type_name: ".x.Features" } }
"""


@lru_cache(maxsize=1)
def _example_class() -> Any:
    """Return the message class of tf.train.Example."""
    # Imported late: conversion only writes.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    file = text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("x.Example"))
