import json

import pytest

import run
from library.errors import answer
from library.inputs import stages


def test_the_share_of_a_stage_is_what_it_adds():
    shares = stages.shares_of_time({"read": 1000, "decode": 200, "augment": 100})
    assert shares == pytest.approx({"read": 0.1, "decode": 0.4, "augment": 0.5})
    odd = stages.shares_of_time({"read": 1000, "decode": 200, "augment": 201})
    assert odd["augment"] == 0


def test_the_slowest_stage_is_named_with_what_would_help():
    *table, last = stages.tell_stages({"read": 1000, "decode": 200, "augment": 190})
    assert len(table) == 3
    assert table[1].startswith("decode")
    assert "200 images/s" in table[1]
    assert last.startswith("decode holds the rest back: a smaller --max_edge")


def test_the_command_measures_each_stage(capsys, options, monkeypatch):
    monkeypatch.setattr(stages, "_SECONDS", 0.2)
    assert answer(run.main, ["benchmark_inputs", *options], "run.py") == 0
    captured = capsys.readouterr()
    rates = json.loads(captured.out)["images_per_second"]
    assert list(rates) == ["read", "decode", "augment"]
    assert min(rates.values()) > 0
    assert "holds the rest back" in captured.err
