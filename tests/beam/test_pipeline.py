"""Beam pipelines as commands run them: options, errors, and worker processes that die."""

import re

import pytest

from library.beam.pipeline import import_beam, read_options, run_pipeline
from library.errors import DataError, SettingsError, UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("--runner=Foo", "Foo"),
        ("--runner=foo.Bar", "foo"),
        ("--direct_num_worker=2", "direct_num_workers"),
        ("--direct_num_workers=x", "direct_num_workers"),
        ("'", "quotation"),
        ("runner=DirectRunner", "runner=DirectRunner"),
    ],
)
def test_read_options_refuses(text, names):
    with pytest.raises(SettingsError, match=names):
        read_options(text)


def fail(number):
    raise DataError("shard 3 is bad") if number == 3 else ValueError("no number 4")


@pytest.mark.parametrize(("number", "kind"), [(3, DataError), (4, UserError)])
def test_run_pipeline_keeps_class_of_error(number, kind):
    beam = import_beam()
    stopped = []
    with pytest.raises(kind) as raised:
        run_pipeline(
            lambda pipeline: pipeline | beam.Create([number]) | beam.Map(fail),
            read_options(""),
            stop=lambda: stopped.append(True),
        )
    assert type(raised.value) is kind
    assert ("shard 3 is bad" if number == 3 else "no number 4") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "running" not in str(raised.value)
    assert stopped


def test_documented_options_are_known():
    page = (ROOT / "docs" / "beam.md").read_text(encoding="utf-8").replace("\\\n", " ")
    texts = re.findall(r"--beam_options '(--[^']+)'", page)
    assert len(texts) > 3
    for text in texts:
        read_options(text)
