"""All settings as tables in Markdown, and as JSON schemas for editors."""

from collections.abc import Iterable
from typing import Any

from library.configuration.output import group_by_heading
from library.configuration.schema import Key, Keys, keys_of
from library.configuration.yaml_parser import to_yaml


def reference(parts: Iterable[tuple[str, type[Keys]]]) -> str:
    """Return tables of all keys as Markdown; `parts` are (heading, model)."""
    lines = []
    for title, model in parts:
        lines += [f"## {title}", ""]
        for heading, group in group_by_heading(keys_of(model)).items():
            lines += [f"### {heading}", "", "| key | short | default | value | meaning |"]
            lines.append("| --- | --- | --- | --- | --- |")
            lines += [_reference_row(key) for key in group]
            lines.append("")
    return "\n".join(lines)


def _reference_row(key: Key) -> str:
    is_followed = key.default is None and key.follows
    default = key.followed_words if is_followed else to_yaml(key.default)
    also = f" (also `{'`, `'.join(key.also)}`)" if key.also else ""
    short = f"`-{key.short}`" if key.short else ""
    cells = (f"`{key.name}`", short, f"`{default}`", key.expected, key.meaning + also)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def json_schema(title: str, keys: Iterable[Key], *, has_domains: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a YAML file of named sets, for editors that complete keys.

    Draft 7, as the YAML language server reads it.

    Args:
        title: The file.
        keys: The keys of a set.
        has_domains: Whether a value may be what a search varies: a range or choices.
    """
    definitions: dict[str, Any] = {}
    if has_domains:
        definitions = {"choices": _CHOICES, "range": _RANGE}
    properties = {
        name: _add_domains(key, _key_schema(key)) if has_domains else _key_schema(key)
        for key in keys
        for name in key.names
    }
    one_set = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "<<": {"description": "sets to inherit from: *name, or [*first, *second]"},
            **properties,
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": ["object", "null"],
        "definitions": {"set": one_set, **definitions},
        # Shared keys, which are not checked until a set inherits them.
        "patternProperties": {r"^(\.|x-)": {"anyOf": [{"$ref": "#/definitions/set"}, {}]}},
        "additionalProperties": {"$ref": "#/definitions/set"},
    }


def _add_domains(key: Key, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value, or of the values among which to search."""
    about: dict[str, Any] = {
        name: schema.pop(name) for name in ("default", "description") if name in schema
    }
    is_number = key.base in (int, float) and not key.choices
    names = ("choices", "range") if is_number else ("choices",)
    return {**about, "anyOf": [schema, *({"$ref": f"#/definitions/{name}"} for name in names)]}


def _mapping(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [next(iter(properties))],
    }


# What a search may vary. That each value suits its setting is checked when the file is read.
_ENDS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_STEP = {"type": "number", "exclusiveMinimum": 0}
_CHOICES = _mapping(choices={"type": "array", "minItems": 1, "uniqueItems": True})
_RANGE = {"anyOf": [_ENDS, _mapping(log=_ENDS), _mapping(range=_ENDS, step=_STEP)]}


def _key_schema(key: Key) -> dict[str, Any]:
    schema = key.adapter.json_schema()
    for name in ("short", "follows", "also", "bare", "takes_options"):
        schema.pop(name, None)
    if key.is_optional:
        schema["anyOf"].append({"const": "none"})
    return schema
