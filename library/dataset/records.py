"""The one place that knows a record's fields, how they are laid out in bytes, and how read back.

A record is a serialized tf.train.Example, inside the framing of a TFRecord file. Both are written
here without TensorFlow, which takes seconds to import and which conversion has no other use for.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

import google_crc32c

from library.errors import DataError

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
FRAMING_BYTES = _HEADER.size + _FOOTER.size


@dataclass(frozen=True, slots=True)
class Record:
    """One labeled image, as it is stored; of several classes: tuples of label and text."""

    encoded: bytes
    height: int
    width: int
    label: int | tuple
    text: str | tuple
    filename: str


_FIELDS = {
    "encoded": (ENCODED, bytes),
    "height": (HEIGHT, int),
    "width": (WIDTH, int),
    "label": (LABEL, int),
    "text": (TEXT, bytes),
    "filename": (FILENAME, bytes),
}


def parse_record(serialized, keys=tuple(_FIELDS)):
    """Return a record's fields as a dict of scalar tensors, from a scalar string tensor.

    Keys: encoded, text, filename (string), height, width, label (int64); fewer are faster. Instead
    of `label`, `labels` gives int64 (n,): all classes of an image. For use inside tf.data.
    """
    import tensorflow as tf  # late: conversion imports this module and never needs TensorFlow

    kinds = {bytes: tf.string, int: tf.int64}
    wanted = {key: _FIELDS[key] for key in keys if key != "labels"}
    features = {name: tf.io.FixedLenFeature((), kinds[kind]) for name, kind in wanted.values()}
    if "labels" in keys:
        wanted["labels"] = (LABEL, int)
        features[LABEL] = tf.io.FixedLenSequenceFeature((), tf.int64, allow_missing=True)
    parsed = tf.io.parse_single_example(serialized, features)
    return {key: parsed[name] for key, (name, _) in wanted.items()}


def label_of_records(serialized):
    """Return int64 (n,) labels from a string tensor (n,) of records. For use inside tf.data."""
    import tensorflow as tf

    return tf.io.parse_example(serialized, {LABEL: tf.io.FixedLenFeature((), tf.int64)})[LABEL]


def serialize(record):
    """Return a Record as the bytes of a serialized tf.train.Example."""
    return b"".join(_serialized(record))


def frame(record):
    """Return a Record as bytes of a TFRecord file: length, serialized Example, and their CRCs."""
    pieces = _serialized(record)
    content = b"".join(pieces)
    length = len(content).to_bytes(8, "little")
    header = _HEADER.pack(len(content), _masked_crc(length))
    return b"".join((header, content, _FOOTER.pack(_masked_crc(content))))


def read_frames(file, where):
    """Yield (offset, serialized Example) for each record of an open TFRecord file.

    Raises DataError, naming `where` and the record, at the first damaged or unfinished one.
    """
    offset = number = 0
    while header := file.read(_HEADER.size):
        here = f"{where}: record {number} (at byte {offset})"
        if len(header) < _HEADER.size:
            raise DataError(f"{here} is cut short")
        length, length_crc = _HEADER.unpack(header)
        # Checked before reading: a damaged length could ask for exabytes.
        if _masked_crc(header[:8]) != length_crc:
            raise DataError(f"{here} is damaged: its length fails its checksum")
        body = file.read(length + _FOOTER.size)
        if len(body) < length + _FOOTER.size:
            raise DataError(f"{here} is cut short")
        content = body[:length]
        if _masked_crc(content) != _FOOTER.unpack(body[length:])[0]:
            raise DataError(f"{here} is damaged: its content fails its checksum{_hint(content)}")
        yield offset, content
        offset += FRAMING_BYTES + length
        number += 1


def read_frame_sizes(file):
    """Yield (offset, size) of each framed record in an open file that is known to be whole."""
    offset = 0
    while header := file.read(_HEADER.size):
        size = _HEADER.unpack(header)[0] + FRAMING_BYTES
        yield offset, size
        offset += size
        file.seek(offset)


def read_record(serialized, where, *, multi_label=False):
    """Return the Record in a serialized Example; with `several`, tuples of label and text.

    Raises DataError if a field is missing or wrong.
    """
    try:
        fields = _features(serialized)
        return Record(
            encoded=_bytes_value(fields[ENCODED]),
            height=_int_value(fields[HEIGHT]),
            width=_int_value(fields[WIDTH]),
            label=_int_values(fields[LABEL]) if multi_label else _int_value(fields[LABEL]),
            text=_texts(fields[TEXT]) if multi_label else _text(_bytes_value(fields[TEXT])),
            filename=_text(_bytes_value(fields[FILENAME])),
        )
    except KeyError as error:
        raise DataError(f"{where} has no field {error}") from None
    except (IndexError, ValueError) as error:
        raise DataError(f"{where} is no tf.train.Example: {error}") from None


def bytes_field(serialized, name, where, default=None):
    """Return bytes of one field; `default`, unless that is None, where there is no such field."""
    return _field_value(serialized, name, where, default, _bytes_value)


def texts_field(serialized, name, where):
    """Return a tuple of the texts in one field."""
    return _field_value(serialized, name, where, None, _texts)


def int_field(serialized, name, where, default=None):
    """Return number of one field; `default`, unless that is None, where there is no such one."""
    return _field_value(serialized, name, where, default, _int_value)


def _field_value(serialized, name, where, default, read):
    try:
        fields = _features(serialized)
        return default if name not in fields and default is not None else read(fields[name])
    except KeyError:
        raise DataError(f"{where} has no field {name}") from None
    except (IndexError, ValueError) as error:
        raise DataError(f"{where} is no tf.train.Example: {error}") from None


def _hint(content):
    """Return words for the source image of a damaged record, where its name can still be read."""
    try:
        filename = _bytes_value(_features(content)[FILENAME]).decode("utf-8", "replace")
    except (KeyError, IndexError, ValueError):
        return ""
    return f"; it was made from {filename}"


def _masked_crc(content):
    # TFRecord rotates and offsets its CRC-32C: the CRC of data that holds its own CRC is weak.
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


_VARINT = 0
_FIXED64 = 1
_LENGTH_DELIMITED = 2
_FIXED32 = 5


def _serialized(record):
    """Return the pieces of the serialized Example; the image is not copied on the way."""
    return _field(
        1,
        [
            _int_entry(LABEL, *_all_of(record.label)),
            _text_entry(TEXT, *_all_of(record.text)),
            *_bytes_entry(ENCODED, record.encoded),
            *_bytes_entry(FILENAME, _utf8(record.filename)),
            _text_entry(FORMAT, "JPEG"),
            _int_entry(HEIGHT, record.height),
            _int_entry(WIDTH, record.width),
        ],
    )


def _all_of(value):
    return value if isinstance(value, tuple) else (value,)


def _utf8(text):
    # A file name that is not UTF-8 keeps its own bytes.
    return text.encode("utf-8", "surrogateescape")


def _text(content):
    return content.decode("utf-8", "surrogateescape")


def _bytes_entry(name, *values):
    feature = _field(2, _field(1, [piece for value in values for piece in _field(1, [value])]))
    return _field(1, _field(1, [name.encode()]) + feature)


# Labels, classes and sizes are the same again and again; as cached bytes they cost nothing.
@lru_cache(maxsize=4096)
def _text_entry(name, *texts):
    return b"".join(_bytes_entry(name, *map(_utf8, texts)))


@lru_cache(maxsize=4096)
def _int_entry(name, *values):
    # Negative numbers take ten bytes: they are sent as their two's complement in 64 bits.
    packed = [_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values]
    feature = _field(2, _field(3, _field(1, packed) if packed else []))
    return b"".join(_field(1, _field(1, [name.encode()]) + feature))


def _field(number, pieces):
    length = sum(map(len, pieces))
    return [_ONE_BYTE[number << 3 | _LENGTH_DELIMITED] + _varint(length), *pieces]


_ONE_BYTE = [bytes([value]) for value in range(0x80)]


def _varint(value):
    if value < 0x80:
        return _ONE_BYTE[value]
    output = bytearray()
    while value > 0x7F:
        output.append(value & 0x7F | 0x80)
        value >>= 7
    output.append(value)
    return bytes(output)


def _features(serialized):
    """Give {name: serialized Feature}."""
    view = memoryview(serialized)
    found = {}
    for features in _values(view, 1):
        for entry in _values(features, 1):
            name = _only(entry, 1)
            if isinstance(name, int):
                raise ValueError("a number where a name belongs")
            found[bytes(name).decode()] = _only(entry, 2)
    return found


def _bytes_value(feature):
    value = _only(_only(feature, 1), 1)
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return bytes(value)


def _texts(feature):
    values = tuple(_values(_only(feature, 1), 1))
    if any(isinstance(value, int) for value in values):
        raise ValueError("a number where bytes belong")
    return tuple(_text(bytes(value)) for value in values)


def _int_value(feature):
    value = _only(_only(feature, 3), 1)
    if isinstance(value, memoryview):  # packed; an unpacked one arrives as a number
        value, _ = _read_varint(value, 0)
    return _signed(value)


def _int_values(feature):
    found = []
    for value in _values(_only(feature, 3), 1):
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        position = 0
        while position < len(value):
            number, position = _read_varint(value, position)
            found.append(_signed(number))
    return tuple(found)


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _only(message, number):
    values = list(_values(message, number))
    if len(values) != 1:
        raise ValueError(f"{len(values)} values where one belongs")
    return values[0]


def _values(message, wanted):
    """Yield the values of the field `wanted` in a serialized message."""
    if isinstance(message, int):
        raise ValueError("a number where a message belongs")
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _read_varint(message, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(message, position)
            value, position = message[position : position + length], position + length
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
            value, position = message[position : position + length], position + length
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > len(message):
            raise ValueError("a field longer than its message")
        if number == wanted:
            yield value


def _read_varint(message, position):
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
