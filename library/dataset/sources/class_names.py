"""Which texts may name a class, and what they become: NFC, without spaces around them."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator

from library.dataset.sources.base import LabeledFile, composed
from library.errors import DataError, printable
from library.logging import log_once
from library.messages import listed

# Control characters, line and paragraph separators, and what stands for bytes that aren't UTF-8.
_FORBIDDEN = {"Cc", "Zl", "Zp"}
_UNDECODED = "Cs"

logger = logging.getLogger(__name__)


def normalize_class(name: str) -> str:
    """Return the name of a class in Unicode's normal form C, without spaces around it.

    Raises:
        DataError: The name is blank, not UTF-8, or has a line break or a control character, which
            would break the lines of a CSV file, a page or a message.
    """
    # Almost all names are plain.
    if name.isascii() and name.isprintable() and name == name.strip() and name:
        return name
    kinds = set(map(unicodedata.category, name))
    if _UNDECODED in kinds:
        raise DataError(f"the class name '{printable(name)}' is not UTF-8: rename it")
    if kinds & _FORBIDDEN:
        raise DataError(f"the class name '{printable(name)}' has a control character: rename it")
    normal = composed(name).strip()
    if not normal:
        raise DataError(f"the class name {name!r} is blank: rename it")
    return normal


def normalize_labels(files: Iterable[LabeledFile], source: object) -> Iterator[LabeledFile]:
    """Yield files with normalized class names. Log once which names were changed.

    Raises DataError, naming the source, for a text that can't name a class.
    """
    # {name as it is: normalized name}; "" is no class.
    names = {"": ""}

    def normalize(name: str, file: LabeledFile) -> str:
        if name not in names:
            try:
                names[name] = normalize_class(name)
            except DataError as error:
                raise DataError(f"{source}: {error} (of {printable(file.name)})") from None
        return names[name]

    for file in files:
        label = file.label
        normal: str | tuple[str, ...]
        if isinstance(label, str):
            normal = names[label] if label in names else normalize(label, file)
        else:
            normal = tuple(sorted({normalize(each, file) for each in label}))
        yield file if normal == label else file._replace(label=normal)
    if changed := {names[each] for each in names if names[each] != each}:
        how = "normalized (Unicode NFC, no spaces around them)"
        log_once(logger, f"{source}: class names were {how}: {listed(sorted(changed))}")
