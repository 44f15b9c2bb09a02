"""All settings as tables in Markdown, and as JSON schemas for editors."""

from collections.abc import Iterable, Sequence
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


def json_schema(title: str, keys: Sequence[Key], *, has_domains: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a YAML file of named sets, for editors that complete keys.

    Draft 7, as the YAML language server reads it.

    Args:
        title: The file.
        keys: The keys of a set.
        has_domains: Whether a value may be what a search varies: a range or choices.
    """
    properties = {name: _key_schema(key) for key in keys for name in key.names}
    values = {}
    if has_domains:
        # The schema of a value is written once, and named where it is that of a choice or an end.
        about = ("default", "description")
        for key in keys:
            values[key.name] = {k: v for k, v in _key_schema(key).items() if k not in about}
            for name in key.names:
                info = {k: v for k, v in properties[name].items() if k in about}
                properties[name] = {**info, "anyOf": _search_forms(key)}
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
        "definitions": {"set": one_set, **values},
        # Shared keys, which are not checked until a set inherits them.
        "patternProperties": {r"^(\.|x-)": {"anyOf": [{"$ref": "#/definitions/set"}, {}]}},
        "additionalProperties": {"$ref": "#/definitions/set"},
    }


def _search_forms(key: Key) -> list[dict[str, Any]]:
    """Return the schemas of a value, and of the values among which to search."""
    single = {"$ref": f"#/definitions/{key.name}"}
    choices = {"type": "array", "items": single, "minItems": 1, "uniqueItems": True}
    forms = [_mapping(choices=choices)]
    if key.base in (int, float) and not key.choices:
        ends = {"type": "array", "items": single, "minItems": 2, "maxItems": 2}
        step = {"type": "number", "exclusiveMinimum": 0}
        forms = [ends, _mapping(log=ends), _mapping(range=ends, step=step), *forms]
    return [single, *forms]


def _mapping(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [next(iter(properties))],
    }


def _key_schema(key: Key) -> dict[str, Any]:
    schema = key.adapter.json_schema()
    for name in ("short", "follows", "also"):
        del schema[name]
    if key.is_optional:
        schema["anyOf"].append({"const": "none"})
    return schema
