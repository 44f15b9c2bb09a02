"""Single values as YAML text: what a text means, and a text that means a value."""

import re

MAX_NUMBER_CHARACTERS = 40
_WORDS = {"true": True, "false": False, "null": None}
_WORDS |= {word.title(): value for word, value in _WORDS.items()}
_WORDS |= {word.upper(): value for word, value in _WORDS.items()}
_WORDS |= {"": None, "~": None}
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|()\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# Text that needs no quotes: no YAML, old or new, can take it for anything else.
_SAFE_TEXT = re.compile(r"(?!\.+$|\.inf|\.nan|\.[0-9])[a-z_./][a-z0-9_./+=-]*", re.IGNORECASE)
_WORDS_OF_ANY_YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def plain_value(text):
    """Return what an unquoted text means in the core schema of YAML 1.2.

    So 1e-4 is a number, and `no` a text. Raises ValueError for a number without sensible bounds.
    """
    if text in _WORDS:
        return _WORDS[text]
    if special := _SPECIAL.fullmatch(text):
        return float((special[1] or "") + text[-3:])
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(text)} characters is too long")
    if not is_integer:
        return float(text)
    number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"the whole number {text} does not fit into 64 bits")
    return number


def yaml_value(value):
    """Return one value as YAML on one line: null, true, a number, text, or a list of them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        is_safe = _SAFE_TEXT.fullmatch(value) and value.lower() not in _WORDS_OF_ANY_YAML
        return value if is_safe else quoted(value)
    return f"[{', '.join(yaml_value(each) for each in value)}]"


def quoted(text):
    """Return text in double quotes, with whatever does not print escaped."""
    return f'"{"".join(_escaped(each) for each in text)}"'


def _escaped(character):
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _float(value):
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    # 1e-05 is a number in YAML 1.2 but text in 1.1; 1.0e-05 is a number in both.
    mantissa, e, exponent = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"
