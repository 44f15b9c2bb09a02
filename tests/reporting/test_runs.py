import json

import pytest

from library.errors import UserError
from library.files import seal_folder
from library.reporting import runs
from library.reporting.runs import read_history, read_run, read_runs, read_settings_file

SETTINGS = """default:

  # Schedule
  train_epochs: {epochs}     # command line
  learning_rate_steps: [a, "b # c"]  # hyperparameters.yaml:3 (set default)
"""


def write_run(folder, accuracy=0.9, epochs=3, test_epoch=2, **test):
    best = folder / "best"
    best.mkdir(parents=True)
    metrics = {"epoch": 2, "step": 8, "monitored": "validation loss", "value": 0.25}
    metrics["validation"] = {"loss": 0.25, "accuracy": accuracy}
    (best / "metrics.json").write_text(json.dumps(metrics))
    (best / "project.yaml").write_text(SETTINGS.format(epochs=epochs))
    seal_folder(best)
    rows = "epoch,images_per_second\n1,100\n2,300\n3,\n"
    (folder / "history.csv").write_text(rows)
    (folder / "checkpoints" / "step_0000000012").mkdir(parents=True)
    state = folder / "checkpoints" / "step_0000000012" / "state.json"
    state.write_text(json.dumps({"seconds": 3725.4}))
    (folder / "evaluation").mkdir()
    found = {"epoch": test_epoch, "accuracy": 0.8, "intervals": {"accuracy": [0.7, 0.9]}}
    content = json.dumps({**found, "parameters": 1234, **test})
    (folder / "evaluation" / "test.json").write_text(content)
    return folder


def test_a_run_is_what_its_folder_tells(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert run.best["value"] == 0.25
    assert run.settings == {"train_epochs": "3", "learning_rate_steps": '[a, "b # c"]'}
    assert (run.seconds, run.images_per_second, run.parameters) == (3725.4, 200, 1234)
    assert run.test == (0.8, (0.7, 0.9))
    assert read_run(write_run(tmp_path / "b", intervals={})).test == (0.8, None)


def test_what_was_measured_of_an_earlier_best_is_not_told(tmp_path):
    run = read_run(write_run(tmp_path / "a", test_epoch=1))
    assert run.test is run.parameters is None


WHOLE = {"images": 9, "images_in_split": 9, "views": 1, "members": [{}], "data": {"is_own": True}}


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({}, True),
        ({"images": 8}, False),
        ({"data": {"is_own": False}}, False),
        ({"views": 2}, False),
        ({"members": [{}, {}]}, False),
    ],
)
def test_only_the_whole_test_split_seen_by_the_best_alone_is_told(tmp_path, changes, is_told):
    run = read_run(write_run(tmp_path / "a", **WHOLE | changes))
    assert (run.test is not None) == is_told
    assert run.parameters == 1234


def test_what_is_missing_is_not_known(tmp_path):
    folder = write_run(tmp_path / "a")
    for name in ("history.csv", "checkpoints/step_0000000012/state.json", "evaluation/test.json"):
        (folder / name).unlink()
    run = read_run(folder)
    assert run.seconds is run.images_per_second is run.parameters is run.test is None


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("best/metrics.json", "{}", r"the snapshot in .* is damaged \(metrics.json is not what"),
        ("best/hashes.json", None, "is damaged .hashes.json is missing"),
        ("evaluation/test.json", "{", "a cannot be read: JSONDecodeError"),
        ("evaluation/test.json", "[1]", "a cannot be read: AttributeError"),
        ("evaluation/test.json", '{"epoch": 2}', "a cannot be read: KeyError..accuracy"),
        ("evaluation/test.json", '{"epoch": 2, "accuracy": []}', "a cannot be read: TypeError"),
    ],
)
def test_a_broken_run_is_named(tmp_path, name, content, text):
    folder = write_run(tmp_path / "a")
    (folder / name).write_text(content) if content else (folder / name).unlink()
    with pytest.raises(UserError, match=text):
        read_run(folder)


def test_a_run_whose_best_is_replaced_meanwhile_is_read_again(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    write_run(tmp_path / "next", accuracy=0.95)
    find_damage = runs.find_damage

    def replace_first(best):
        monkeypatch.setattr(runs, "find_damage", find_damage)
        (folder / "best").rename(folder / "best.previous")
        damage = find_damage(best)
        (tmp_path / "next" / "best").rename(folder / "best")
        return damage

    monkeypatch.setattr(runs, "find_damage", replace_first)
    assert read_run(folder).best["validation"]["accuracy"] == 0.95


def test_a_run_is_read_where_the_replacement_of_its_best_was_cut_short(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "best").rename(folder / "best.previous")
    assert read_run(folder).best["epoch"] == 2


def test_the_rest_is_read_where_some_are_no_runs(tmp_path):
    (tmp_path / "half").mkdir()
    folders = [tmp_path / "none", tmp_path / "half", write_run(tmp_path / "a")]
    runs, skipped = read_runs(folders)
    assert [run.folder.name for run in runs] == ["a"]
    none, half = skipped
    assert none == f"skipped: {tmp_path}/none is no folder"
    assert half.startswith(f"skipped: {tmp_path}/half has no best snapshot")


def test_a_history_of_any_shape_is_read(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,0.5\n2,\n")
    first, second = read_history(path)
    assert first == {"epoch": 1, "loss": 0.5}
    assert second["loss"] != second["loss"]
    assert read_history(None) == read_history(tmp_path / "none") == []


def test_settings_come_with_where_they_come_from(tmp_path):
    path = tmp_path / "project.yaml"
    path.write_text(SETTINGS.format(epochs=5))
    assert read_settings_file(path)[0] == ("train_epochs", "5", "command line")
    assert read_settings_file(tmp_path / "none") == []
