"""Decisions that reach corrections.csv, whole or not at all, and those that don't."""

import errno
import multiprocessing

import pytest

from library.cleaning import decisions
from library.cleaning.decisions import Review
from library.dataset.corrections import read_corrections
from library.errors import DataError, UserError
from tests.cleaning.conftest import make_suspects, write_folder

UNDECIDED = {"action": "undecided", "labels": []}


def decide(review, number, action, labels=(), expected=UNDECIDED):
    decision = {"id": number, "action": action, "labels": list(labels), "expected": expected}
    return review.decide({"version": review.state()["version"], **decision})


def rows(review):
    return {
        each.file[:6]: (each.action, each.new_label) for each in read_corrections(review.path)[0]
    }


def test_decisions_are_rows_and_are_found_again(folder):
    review = Review(folder)
    decide(review, 0, "relabel", ["red"])
    decide(review, 1, "keep")
    state = decide(review, 2, "drop")
    found, _ = read_corrections(folder / "corrections.csv")
    first = found[0]
    assert first.file == "blue/0 é <b>.png"
    assert first.sha256 == "0" * 64
    assert (first.label, first.reason) == ("blue", "5 of 6 neighbors are <red>")
    assert first.date.endswith("+00:00")
    assert rows(review) == {
        "blue/0": ("relabel", "red"),
        "blue/1": ("keep", ""),
        "blue/2": ("drop", ""),
    }
    assert state == Review(folder).state()
    assert state["decisions"]["0"] == {"action": "relabel", "labels": ["red"]}


def test_decision_replaces_the_one_before_and_can_be_undone(folder):
    review = Review(folder)
    decide(review, 1, "drop")
    # The label that it has already.
    kept = decide(review, 1, "relabel", ["blue"], {"action": "drop", "labels": []})
    assert kept["decisions"] == {"1": {"action": "keep", "labels": []}}
    assert decide(review, 1, "undecided", (), kept["decisions"]["1"])["decisions"] == {}
    assert rows(review) == {}


def test_rows_and_columns_of_a_person_stay(folder):
    (folder / "corrections.csv").write_text(
        "action;file;note\ndrop;elsewhere.png;mine\nkeep;blue/1 é <b>.png;sure?\n"
    )
    review = Review(folder)
    assert review.state()["decisions"] == {"1": {"action": "keep", "labels": []}}
    decide(review, 1, "drop", (), {"action": "keep", "labels": []})
    found, _ = read_corrections(review.path)
    assert [(each.file[:6], each.action, each.others) for each in found] == [
        ("elsewh", "drop", {"note": "mine"}),
        ("blue/1", "drop", {"note": "sure?"}),
    ]


def test_decision_about_a_replaced_image_is_none(folder):
    decide(Review(folder), 0, "drop")
    suspects = make_suspects()
    write_folder(folder, make_suspects(1))
    object.__setattr__(suspects.suspects[0], "sha256", "f" * 64)
    write_folder(folder, suspects)
    review = Review(folder)
    assert review.state()["decisions"] == {}
    decide(review, 0, "keep")
    assert rows(review) == {"blue/0": ("keep", "")}


def test_multi_label_decisions_have_any_number_of_classes(tmp_path):
    review = Review(write_folder(tmp_path, make_suspects(multi_label=True)))
    decide(review, 0, "relabel", ["red", "blue"])
    state = decide(review, 1, "relabel", [])
    assert rows(review) == {"blue/0": ("relabel", "blue|red"), "blue/1": ("relabel", "")}
    assert state["decisions"]["0"]["labels"] == ["blue", "red"]
    assert state["decisions"]["1"] == {"action": "relabel", "labels": []}


def test_decision_that_another_window_made_is_not_replaced(folder):
    one, other = Review(folder), Review(folder)
    decide(one, 0, "drop")
    state = decide(other, 0, "keep")
    assert "elsewhere" in state["message"]
    assert state["decisions"]["0"]["action"] == "drop"
    decide(other, 1, "keep")
    assert rows(one) == {"blue/0": ("drop", ""), "blue/1": ("keep", "")}


def test_decision_about_suspects_of_another_run_of_clean_is_refused(folder):
    review = Review(folder)
    version = review.state()["version"]
    write_folder(folder, make_suspects(2, images=41))
    request = {"version": version, "id": 0, "action": "drop", "labels": [], "expected": UNDECIDED}
    state = review.decide(request)
    assert "reload" in state["message"]
    assert state["version"] != version
    assert not review.path.exists()


def _decide_all(folder, numbers):
    for number in numbers:
        decide(Review(folder), number, "drop")


def test_processes_lose_no_decision_of_each_other(tmp_path):
    folder = write_folder(tmp_path, make_suspects(20))
    context = multiprocessing.get_context("fork")
    halves = [range(0, 20, 2), range(1, 20, 2)]
    processes = [context.Process(target=_decide_all, args=(folder, each)) for each in halves]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
        assert each.exitcode == 0
    assert len(Review(folder).state()["decisions"]) == 20


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 3},
        {"id": -1},
        {"id": "0"},
        {"action": "burn"},
        {"labels": ["cyan"]},
        {"labels": ["red", "green"]},
        {"labels": []},
        {"labels": "red"},
        {"labels": [["red"]]},
        {"action": "drop"},
    ],
)
def test_decision_without_sense_is_refused(folder, changed):
    review = Review(folder)
    request = {"id": 0, "action": "relabel", "labels": ["red"], "expected": UNDECIDED}
    with pytest.raises(ValueError, match=r"\w"):
        review.decide({"version": review.state()["version"], **request, **changed})
    assert not review.path.exists()


def test_full_disk_leaves_the_decisions_before(folder, monkeypatch):
    review = Review(folder)
    decide(review, 0, "drop")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(UserError, match=r"corrections.csv can't be written: No space left"):
            decide(review, 1, "keep")
    assert rows(review) == {"blue/0": ("drop", "")}
    assert not list(folder.glob(".*"))
    decide(review, 1, "keep")
    assert len(rows(review)) == 2


def test_malformed_corrections_are_named_and_stay(folder):
    review = Review(folder)
    review.path.write_text("file,action\na.png,drip\n")
    with pytest.raises(DataError, match=r"line 2: unknown action 'drip'"):
        decide(review, 0, "drop")
    with pytest.raises(DataError, match="drip"):
        Review(folder)
    assert "drip" in review.path.read_text()


def test_review_without_suspects_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"python run.py clean"):
        Review(tmp_path)
    assert decisions.CORRECTIONS == "corrections.csv"
