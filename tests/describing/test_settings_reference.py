"""The reference of all settings, and the JSON schemas of both files."""

import re

import pytest

from library.configuration.schema import keys_of
from library.configuration.yaml_parser import read_documents, to_python
from library.describing.settings_reference import json_schema, reference
from project.generate_docs import hyperparameters_schema, project_schema
from tests.conftest import ROOT
from tests.helpers.settings import Bakery


def test_reference_has_a_row_for_every_key():
    text = reference([("The bakery", Bakery)])
    assert text.startswith(
        """\
## The bakery

### Bakery

| key | short | default | value | meaning |
| --- | --- | --- | --- | --- |
| `loaves` |  | `1` | an integer of at least 1 | loaves |
| `ovens` |  | `loaves` | an integer of at least 1, or none | ovens |
| `heat` |  | `180.0` | a number greater than 0 | heat |
"""
    )
    assert "| `kind` |  | `bread` | one of bread, cake | kind |\n" in text
    assert "| `sign` |  | `town/bread` | a string, or none | sign |\n" in text


SCHEMAS = {"project.yaml": project_schema(), "hyperparameters.yaml": hyperparameters_schema()}


def refuses(schema, sets):
    """Whether a schema refuses sets: with jsonschema if it is installed, else by the keys."""
    try:
        from jsonschema import Draft7Validator
    except ModuleNotFoundError:
        known = schema["definitions"]["set"]["properties"].keys()
        return any(values.keys() - known for values in sets.values())
    Draft7Validator.check_schema(schema)
    return not Draft7Validator(schema).is_valid(sets)


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schema_accepts_shipped_files_and_refuses_misspelled_keys(name):
    schema = SCHEMAS[name]
    (document,) = read_documents(ROOT / name)
    sets = to_python(document)
    assert len(sets) > 3
    assert not refuses(schema, sets)
    for misspelled in ({"mine": {"bach_size": 1}}, {"mine": {"learning-rate": 0.1}}):
        assert refuses(schema, {**sets, **misspelled})


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schema_is_named_in_the_first_line(name):
    first = (ROOT / name).read_text().splitlines()[0]
    path = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)[1]
    assert (ROOT / path).is_file()


def test_json_schema_of_keys():
    schema = json_schema("Bakery", keys_of(Bakery))
    properties = schema["definitions"]["set"]["properties"]
    assert properties.keys() == {"<<", *Bakery.model_fields}
    assert properties["loaves"] == {
        "default": 1,
        "description": "loaves",
        "minimum": 1,
        "type": "integer",
    }
    assert properties["kind"]["enum"] == ["bread", "cake"]
    kinds = [each.get("type", each.get("const")) for each in properties["ovens"]["anyOf"]]
    assert kinds == ["integer", "null", "none"]
