"""The reference as Markdown."""

from library.configuration.output import reference
from tests.configuration.test_resolution import Bakery


def test_every_key_is_a_row():
    text = reference("make docs", [("The bakery", Bakery)])
    assert "\n    make docs\n" in text
    rows = text[text.index("## The bakery") :]
    assert rows.startswith(
        """\
## The bakery

### Bakery

| key | short | default | value | meaning |
| --- | --- | --- | --- | --- |
| `loaves` |  | `1` | a whole number of at least 1 | loaves |
| `ovens` |  | `loaves` | a whole number of at least 1, or none | ovens |
| `heat` |  | `180.0` | a number above 0 | heat |
"""
    )
    assert "| `kind` |  | `bread` | one of bread, cake | kind |\n" in rows
    assert "| `sign` |  | `town/bread` | text, or none | sign |\n" in rows
