"""Values written as YAML that reads back as the same values, each with its provenance."""

import re

# Text that needs no quotes: no YAML, old or new, can take it for anything else.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")
_WORDS_OF_OLD_YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def yaml_value(value):
    """Give one value as YAML on one line: null, true, a number, text, or a list of them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return f"[{', '.join(yaml_value(each) for each in value)}]"


def yaml_set(keys, values, head=""):
    """Give a file with the one set `default`: a line for each key, with a provenance comment."""
    lines = [f"# {each}".rstrip() for each in head.splitlines()] + ["default:"]
    pairs = [f"  {key.name}: {yaml_value(values[key.name].value)}" for key in keys]
    # A long value pushes only its own comment to the right.
    width = max((len(each) for each in pairs if len(each) <= 48), default=0)
    group = None
    for key, pair in zip(keys, pairs, strict=True):
        if key.group != group:
            group = key.group
            lines.append(f"  # {group}")
        lines.append(f"{pair.ljust(width)}  # {_comment(values[key.name].provenance)}")
    return "\n".join(lines) + "\n"


def _float(value):
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    # 1e-05 is a number in YAML 1.2 but text in 1.1; 1.0e-05 is a number in both.
    mantissa, e, exponent = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"


def _text(value):
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_OLD_YAML and value != ".":
        if not re.match(r"\.(inf|nan|[0-9])", value, re.IGNORECASE):
            return value
    return '"' + "".join(_escaped(each) for each in value) + '"'


def _escaped(character):
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _comment(text):
    return "".join(each if each.isprintable() else _escaped(each) for each in text)
