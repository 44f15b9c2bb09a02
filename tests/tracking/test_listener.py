"""What a training queues for trackers, and the process that sends it."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from library.errors import StoppedError
from library.tracking import facts, sender
from library.tracking.delivery import read_progress
from library.tracking.event_queue import EventQueue
from library.tracking.listener import Tracking, TrackingListener
from library.tracking.sender import Sender
from library.tracking.tracker import Parameter
from library.training.listeners import Evaluation
from library.training.plan import RunPaths
from tests.helpers.small_run import make_run, stopping_run


def make_listener(folder, send=lambda *_: None, trackers=("jsonl",), *, upload=False):
    parameters = {"lr": Parameter(0.05, "command line")}
    return TrackingListener(Tracking(trackers, parameters, {"a": "b"}, folder, upload), send)


def make_steps(folder, listener, losses=(3.0, 2.0), start=0):
    """Report a training of a step for each loss, and an evaluation, without making it."""
    state = SimpleNamespace(step=start)
    listener.on_start(
        SimpleNamespace(
            state=state,
            plan=SimpleNamespace(save_summary_steps=1),
            paths=RunPaths(folder, folder, folder / "best", ("a", "b")),
            throughput=SimpleNamespace(images_per_second=lambda _: 9.0),
            learning_rates=lambda: {"learning_rate": 0.1},
        )
    )
    for loss in losses:
        state.step += 1
        listener.on_steps(1, [loss])
    row = {"epoch": 1, "step": state.step, "learning_rate": 0.1, "images_per_second": 9.0}
    listener.on_evaluation(Evaluation(row, {"loss": 1.0}, {"loss": 2.0}, is_best=False))
    listener.on_finish(None)


def events_of(folder, kind):
    return [each for each in EventQueue(folder).read_all() if each["event"] == kind]


def metrics_of(folder):
    """{(step, first name): values} in order; fails if anything comes twice."""
    events = events_of(folder, "metrics")
    found = {(each["step"], next(iter(each["values"]))): each["values"] for each in events}
    assert len(found) == len(events)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of nine steps that was tracked."""
    folder = tmp_path_factory.mktemp("whole")
    sent = []
    listener = make_listener(folder, lambda *each: sent.append(each), upload=True)
    run = make_run(folder, listeners=[listener], save_summary_steps=2)
    run.fit()
    assert sent == [(folder, ("jsonl",))]
    return run


def test_events_of_a_run(whole):
    folder = whole.paths.run_dir
    (start,) = events_of(folder, "start")
    assert start["parameters"] == {"lr": [0.05, "command line"]}
    assert start["tags"]["a"] == "b"
    metrics = metrics_of(folder)
    assert [step for step, name in metrics if name == "step/loss"] == [2, 4, 6, 8]
    assert set(metrics[2, "step/loss"]) == {
        *("step/loss", "step/learning_rate", "step/images_per_second")
    }
    for row in whole.state.rows:
        values = metrics[row["step"], "epoch"]
        assert values["validation/loss"] == row["validation_loss"]
        assert values["train/accuracy"] == row["accuracy"]
        is_best = row["epoch"] == whole.state.best["epoch"]
        assert is_best <= (values.get("best/loss") == row["validation_loss"])
    names = [each["name"] for each in events_of(folder, "file")]
    assert names == ["project.yaml", "history.csv", "curves.svg", "best"]
    (finish,) = events_of(folder, "finish")
    assert finish["status"] == "finished"


def test_resumed_run_repeats_nothing(whole, tmp_path):
    """A run that was stopped, and whose queue is ahead of its checkpoint."""
    options = {"save_summary_steps": 2}
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 5, listeners=[make_listener(tmp_path)], **options).fit()
    known, queue = metrics_of(tmp_path), EventQueue(tmp_path)
    for event in EventQueue(whole.paths.run_dir).read_all():
        is_ahead = event["event"] == "metrics" and event["step"] < 9
        if is_ahead and (event["step"], next(iter(event["values"]))) not in known:
            queue.append(event)
    make_run(tmp_path, listeners=[make_listener(tmp_path)], **options).fit()
    assert list(metrics_of(tmp_path)) == list(metrics_of(whole.paths.run_dir))
    assert len({each["id"] for each in events_of(tmp_path, "start")}) == 1
    assert [each["step"] for each in events_of(tmp_path, "start")] == [0, 5]
    assert [each["status"] for each in events_of(tmp_path, "finish")] == ["interrupted", "finished"]


def test_changed_values_of_a_repeated_step_are_queued(tmp_path):
    make_steps(tmp_path, make_listener(tmp_path), [3.0, 2.0])
    make_steps(tmp_path, make_listener(tmp_path), [3.0, 2.5], start=0)
    losses = [each["values"].get("step/loss") for each in events_of(tmp_path, "metrics")]
    assert losses == [3.0, 2.0, None, 2.5]


def test_queue_that_cant_be_written_is_one_warning(tmp_path, capsys):
    (tmp_path / "tracking").write_text("a file, not a folder")
    make_steps(tmp_path, make_listener(tmp_path))
    (warning,) = capsys.readouterr().err.splitlines()
    assert "events.jsonl" in warning


def test_sender_that_cant_start_is_one_warning(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(sender.subprocess, "Popen", fail)
    make_steps(tmp_path, make_listener(tmp_path, Sender("project.trackers").add))
    (warning,) = capsys.readouterr().err.splitlines()
    assert "jsonl" in warning


def test_broken_tracker_neither_raises_nor_stops_others(tmp_path, capsys):
    process = Sender("tests.helpers.own_trackers")
    make_steps(tmp_path, make_listener(tmp_path, process.add, ("broken", "jsonl")))
    process.finish()
    assert "not written well" in read_progress(EventQueue(tmp_path), "broken").error
    lines = [json.loads(each) for each in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["parameters"]["lr"] == {"value": 0.05, "source": "command line"}
    assert [each["step"] for each in lines if "step" in each] == [1, 2, 2]
    assert lines[-1]["status"] == "finished"
    (warning,) = capsys.readouterr().err.splitlines()
    assert "broken" in warning
    assert f"track {tmp_path}" in warning


def test_sender_of_a_killed_training(tmp_path):
    """Its pipe closes: it sends what is there, and that the runs were interrupted."""
    runs = [tmp_path / "seed_0", tmp_path / "seed_1"]
    start = {"event": "start", "time": 1.0, "id": "a", "name": "r", "group": "g", "step": 0}
    lines = []
    for run in runs:
        queue = EventQueue(run)
        queue.append({**start, "trackers": ["jsonl"], "parameters": {}, "tags": {}})
        queue.append({"event": "metrics", "time": 1.0, "step": 1, "values": {"loss": 1.0}})
        lines.append(json.dumps({"run_dir": str(run), "trackers": ["jsonl"]}))
    process = sender.start_process("project.trackers", tmp_path / "log")
    process.communicate("\n".join(lines).encode(), timeout=60)
    for run in runs:
        sent = [json.loads(each) for each in (run / "metrics.jsonl").read_text().splitlines()]
        assert [next(iter(each)) for each in sent] == ["parameters", "step", "status"]
        assert sent[-1]["status"] == "interrupted"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("out/current", (None, "current")),
        ("out/cv/fold_1", ("cv", "fold_1")),
        ("out/s/seed_0/fold_2", ("s", "seed_0/fold_2")),
        ("out/search/trials/0007/seed_0", ("search", "trials/0007/seed_0")),
        ("out/trials", (None, "trials")),
    ],
)
def test_split_experiment(folder, expected):
    assert facts.split_experiment(folder) == expected


def test_git_state(tmp_path):
    assert facts.find_git_state(tmp_path) == {}
    for words in (
        ["init", "-q", "-b", "main"],
        ["-c", "user.name=a", "-c", "user.email=b@c", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    found = facts.find_git_state(tmp_path)
    assert len(found["git_commit"]) == 40
    assert (found["git_branch"], found["git_clean"]) == ("main", "true")
    (tmp_path / "new.py").write_text("")
    assert facts.find_git_state(tmp_path)["git_clean"] == "false"
