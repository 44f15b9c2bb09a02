"""Which field of a record holds what: the layouts that other programs write.

The class of a record is its text, or else its label's number. Both are read, because a label with
two texts, or a text with two labels, means that one of the two fields is not the class.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from library.dataset.records import ENCODED, FILENAME, HEIGHT, LABEL, TEXT, WIDTH, Fields, to_text
from library.dataset.sources.class_names import normalize_class
from library.errors import DataError, SettingsError
from library.logging import log_once
from library.messages import listed, unknown_name

logger = logging.getLogger(__name__)

# Role → the names that its field has in the usual layouts, the most specific first.
FIELD_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        *(ENCODED, "image_raw", "image/image_raw", "image/raw", "image", "image_bytes", "img_raw"),
        *("img", "encoded", "encoded_image", "image_encoded", "jpeg", "jpg", "image_string"),
    ),
    "label": (
        *(LABEL, "label", "image/label", "labels", "class", "class_id", "image/class/id"),
        *("label_id", "category", "target", "y", "image/object/class/label"),
    ),
    "text": (
        *(TEXT, "text", "class/text", "label/text", "label_text", "class_text", "class_name"),
        *("label_name", "image/class/name", "image/object/class/text"),
    ),
    "filename": (FILENAME, "filename", "file_name", "image/name", "image_name", "image/source_id"),
    "height": (HEIGHT, "height", "image_height", "rows"),
    "width": (WIDTH, "width", "image_width", "cols"),
    "channels": ("image/channels", "channels", "depth", "image/depth"),
}
_NONE = "none"
# What begins like this is an encoded image, even if it were as long as its pixels.
_ENCODED = (b"\xff\xd8\xff", b"\x89PNG\r\n")


# A label and its text.
Pair = tuple[int | str | None, str | None]


class RecordContent(NamedTuple):
    """What a record holds.

    Attributes:
        image: An encoded image or, if there is a `shape`, uint8 pixels.
        shape: (height, width, channels) of pixels; None for an encoded image.
        labels: Class ids, or names of classes where the label is text; each once.
        texts: Names of classes, each once.
        filename: Empty if there is none.
    """

    image: bytes
    shape: tuple[int, int, int] | None
    labels: tuple[int | str, ...]
    texts: tuple[str, ...]
    filename: str

    @property
    def pairs(self) -> list[Pair]:
        """Each label with its text; None for one that is missing."""
        return list(zip_longest(self.labels, self.texts))


@dataclass(frozen=True)
class RecordFields:
    """The fields of foreign records.

    Attributes:
        names: Role → the possible names of its field, the first one present counts; empty for a
            field that is not read.
        is_multi_label: Whether a record may have several classes, or none.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: FIELD_NAMES)
    is_multi_label: bool = False

    def read(self, serialized: bytes, where: object) -> RecordContent:
        """Return the content of a serialized Example.

        Raises:
            DataError: It has no image or several, or labels that contradict `is_multi_label`.
        """
        fields = Fields(serialized, where)
        values = {role: self._values(fields, role) for role in self.names}
        image = _to_bytes(values["image"])
        if image is None:
            raise DataError(
                f"{where} has no image in its fields, {fields.describe()}; name one: "
                "--tfrecord_fields image=NAME"
            )
        labels = tuple(_to_label(each, where) for each in dict.fromkeys(values["label"]))
        texts = tuple(_to_class(each, where) for each in dict.fromkeys(values["text"]))
        numbers = values["label"]
        if not self.is_multi_label and len(numbers) > 2 and sorted(numbers)[-2:] == [0, 1]:
            raise DataError(
                f"{where} has the label {_listed(numbers)}, one-hot: name another field by "
                "--tfrecord_fields label=NAME, or label=none"
            )
        if not self.is_multi_label and max(len(labels), len(texts)) > 1:
            several = labels if len(labels) > 1 else texts
            raise DataError(
                f"{where} has several classes ({_listed(several)}); --multi_label accepts them"
            )
        if not (labels or texts or self.is_multi_label) and self.has_class:
            raise DataError(
                f"{where} has no class in its fields, {fields.describe()}; name one: "
                "--tfrecord_fields label=NAME, or text=NAME"
            )
        filename = values["filename"]
        is_named = len(filename) == 1 and isinstance(filename[0], bytes)
        name = to_text(filename[0]) if is_named else ""
        return RecordContent(image, _shape_of(image, values), labels, texts, name)

    @property
    def has_class(self) -> bool:
        """Whether a field of a class is read at all."""
        return bool(self.names["label"] or self.names["text"])

    def _values(self, fields: Fields, role: str) -> tuple:
        # Some programs write an empty text, or a field without values, for none.
        found = (fields.get_values(each) for each in self.names[role] if each in fields)
        return tuple(each for each in next(found, ()) if each != b"")


def read_field_names(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return {role: names of its field} from words such as `image=img_raw` and `text=none`.

    Raises SettingsError.
    """
    names = dict(FIELD_NAMES)
    for word in words:
        role, equals, name = word.partition("=")
        if role not in FIELD_NAMES:
            raise SettingsError(unknown_name("field in tfrecord_fields", role, FIELD_NAMES))
        if not equals or not name:
            raise SettingsError(f"tfrecord_fields: {word!r} needs the form {role}=NAME, or =none")
        names[role] = () if name == _NONE else (name,)
    return names


class RecordClasses:
    """The classes of records, one after another: text and label must be one-to-one."""

    def __init__(self, fields: RecordFields) -> None:
        self._fields = fields
        # Of the first record with a class: where, whether it has labels and texts, both in words.
        self._first: tuple[str, bool, bool, str] | None = None
        # {a label or a text, in words: (the text or label with it, where)}
        self._partners: dict[str, tuple[str, str]] = {}
        self._numbers: set[int] = set()

    def log_numbers(self, source: object) -> None:
        """Log labels that do not count from 0 without gaps, as class ids do."""
        numbers = sorted(self._numbers)
        if numbers != list(range(len(numbers))):
            logger.info(
                f"{source}: the labels are {_listed(numbers)}; class ids count from 0 instead"
            )

    def classes_of(self, content: RecordContent, where: str) -> tuple[str, ...]:
        """Return the classes of a record. A negative label without a text is no class.

        Raises:
            DataError: Its labels and texts contradict each other, or those of earlier records.
        """
        labels, texts = content.labels, content.texts
        if not labels and not texts:
            return ()
        kind = (bool(labels), bool(texts))
        if self._first is None:
            self._first = (where, *kind, _describe(labels, texts))
        elif kind != self._first[1:3]:
            raise DataError(
                f"{where} has {_describe(labels, texts)}, {self._first[0]} has {self._first[3]}; "
                f"{_CHOICE}"
            )
        if labels and texts and len(labels) != len(texts):
            raise DataError(f"{where} has {_describe(labels, texts)}: {_CHOICE}")
        self._numbers.update(each for each in labels if isinstance(each, int))
        if not texts:
            return tuple(str(each) for each in labels if not _is_negative(each))
        for label, text in zip(labels, texts, strict=False):
            pair = (f"the label {label}", f"the text {text!r}")
            for one, other in (pair, pair[::-1]):
                first, earlier = self._partners.setdefault(one, (other, where))
                if first != other:
                    contradiction = f"has {one} with {other}, {earlier} with {first}"
                    raise DataError(f"{where} {contradiction}; {_CHOICE}")
        return texts


_CHOICE = (
    "--tfrecord_fields text=none takes the labels as classes, label=none the texts, "
    "text=NAME another field"
)


def _describe(labels: Sequence[int | str], texts: Sequence[str]) -> str:
    """Return the labels and texts of a record in words."""
    parts = (("label", list(map(str, labels))), ("text", list(map(repr, texts))))
    return " and ".join(
        f"the {noun} {', '.join(values[:5])}" if values else f"no {noun}" for noun, values in parts
    )


def _listed(values: Sequence[object]) -> str:
    return listed(list(map(str, values)))


def _is_negative(label: int | str) -> bool:
    return isinstance(label, int) and label < 0


def _to_bytes(values: tuple) -> bytes | None:
    """Return the bytes of an image, which may be a list of its pixels; None for anything else."""
    if len(values) == 1 and isinstance(values[0], bytes):
        return values[0]
    try:
        return bytes(values) if len(values) > 1 else None
    except (TypeError, ValueError):
        return None


def _to_label(value: bytes | int | float, where: object) -> int | str:
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"{where} has the label {value}, which is no class's number")
        return int(value)
    return value if isinstance(value, int) else _to_class(value, where)


def _to_class(value: bytes | float, where: object) -> str:
    name = to_text(value) if isinstance(value, bytes) else str(value)
    try:
        normal = normalize_class(name)
    except DataError as error:
        raise DataError(
            f"{where}: {error}, or take the labels as classes with --tfrecord_fields text=none"
        ) from None
    if normal != name:
        text = "names of classes in TFRecords are normalized (Unicode NFC, no spaces around them)"
        log_once(logger, text)
    return normal


def _shape_of(image: bytes, values: Mapping[str, tuple]) -> tuple[int, int, int] | None:
    """Return the shape of an image that is stored as uint8 pixels, or None for an encoded one."""
    height, width, channels = (values[each] for each in ("height", "width", "channels"))
    if image.startswith(_ENCODED) or not len(height) == len(width) == 1:
        return None
    try:
        area = int(height[0]) * int(width[0])
        depth = int(channels[0]) if len(channels) == 1 else len(image) // area
        is_pixels = area > 0 and depth in (1, 3, 4) and len(image) == area * depth
    except (ValueError, ZeroDivisionError):
        return None
    return (int(height[0]), int(width[0]), depth) if is_pixels else None
