"""The trackers of the project: a real MLflow server that dies meanwhile, and W&B offline."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest

from library.errors import DataError, SettingsError, StoppedError, UserError
from library.messages import ChoiceError
from library.tracking.delivery import Delivery, count_unsent, read_progress, send_rest
from library.tracking.event_queue import EventQueue
from library.tracking.sender import Sender
from library.training.listeners import Listener
from project import trackers
from project.commands.track import track
from tests.helpers.small_run import make_run, stopping_run
from tests.tracking.test_listener import make_listener, make_steps, metrics_of

# On a busy machine, importing MLflow can take a minute.
SECONDS = 240


class MLflowServer:
    """`mlflow server` on a database in a folder."""

    def __init__(self, folder):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        where = [
            *("--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where],
                stdout=log,
                stderr=log,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        give_up = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < give_up, (self.folder / "log").read_text()
                time.sleep(0.2)

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ask(self, what, **query):
        """Return an answer of the REST API."""
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{what}",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        if what.endswith(("get", "list", "get-history", "get-by-name")):
            words = "&".join(f"{key}={value}" for key, value in query.items())
            request = f"{self.url}/api/2.0/mlflow/{what}?{words}"
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MLflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


class KillServer(Listener):
    """Kills the server in the middle of a training, after the first epoch has arrived."""

    def __init__(self, server):
        self.server = server

    def on_evaluation(self, evaluation):
        queue, give_up = EventQueue(self.run.paths.run_dir), time.monotonic() + SECONDS
        while count_unsent(queue, "mlflow"):
            assert time.monotonic() < give_up
            time.sleep(0.1)
        self.server.kill()


@pytest.mark.slow
def test_mlflow_server_that_dies_in_a_training(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    folder = tmp_path / "cv" / "fold_1"
    process = Sender("project.trackers")

    def listener():
        return make_listener(tmp_path, process.add, ("mlflow",), upload=True)

    options = {"save_summary_steps": 2}
    with pytest.raises(StoppedError):
        stopping_run(folder, 5, listeners=[listener(), KillServer(server)], **options).fit()
    began = time.monotonic()
    process.finish()
    assert time.monotonic() - began < 30
    queue = EventQueue(folder)
    assert 0 < count_unsent(queue, "mlflow") < 10
    assert f"track {folder}" in capsys.readouterr().err.splitlines()[-1]
    server.start()
    resumed = make_run(folder, listeners=[listener()], **options)
    resumed.fit()
    process.finish()
    assert send_rest(queue, "mlflow", trackers.MLflow)[1].error is None
    assert count_unsent(queue, "mlflow") == 0

    experiment = server.ask("experiments/get-by-name", experiment_name="cv")["experiment"]
    found = server.ask("runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert [each["info"]["run_name"] for each in found] == ["fold_1"]
    info, data = found[0]["info"], found[0]["data"]
    assert info["status"] == "FINISHED"
    assert {each["key"]: each["value"] for each in data["params"]} == {"lr": "0.05"}
    tags = {each["key"]: each["value"] for each in data["tags"]}
    assert (tags["a"], tags["group"], tags["source.lr"]) == ("b", "cv", "command line")
    names = {name for values in metrics_of(folder).values() for name in values}
    for name in names:
        history = server.ask("metrics/get-history", run_id=info["run_id"], metric_key=name)
        got = [(each["step"], pytest.approx(each["value"])) for each in history["metrics"]]
        queued = {k[0]: values[name] for k, values in metrics_of(folder).items() if name in values}
        assert got == list(queued.items())
    files = server.ask("artifacts/list", run_id=info["run_id"])["files"]
    assert {each["path"]: each["is_dir"] for each in files} == {"project.yaml": False, "best": True}


@pytest.mark.slow
def test_mlflow_run_that_was_created_before_a_crash(server, tmp_path, monkeypatch):
    """The server has the run, and the folder does not know: no second one is created."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "crash")
    queue = EventQueue(tmp_path)
    run = {"id": "e" * 32, "name": "r", "group": None, "time": 1.0, "step": 0}
    parameters = {"lr": [0.1, "default"], "text": ["x" * 9000, "default"]}
    start = {"event": "start", "trackers": ["mlflow"], "parameters": parameters, "tags": {}}
    queue.append({**start, **run})
    values = {"recall of <b>": 0.5, "nothing": float("nan")}
    queue.append({"event": "metrics", "time": 2.0, "step": 3, "values": values})
    for _ in range(2):
        assert send_rest(queue, "mlflow", trackers.MLflow)[1].error is None
        (queue.folder / "mlflow.json").unlink()
    changed = {**parameters, "lr": [0.2, "command line"]}
    queue.append({**start, **run, "parameters": changed})
    _, progress = send_rest(queue, "mlflow", trackers.MLflow)
    assert (progress.error, progress.rejected) == (None, None)
    experiment = server.ask("experiments/get-by-name", experiment_name="crash")["experiment"]
    (found,) = server.ask("runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert found["info"]["status"] == "KILLED"
    tags = {each["key"]: each["value"] for each in found["data"]["tags"]}
    assert (tags["changed.lr"], tags["source.lr"]) == ("0.2", "command line")
    history = server.ask(
        "metrics/get-history", run_id=found["info"]["run_id"], metric_key="recall%20of%20_b_"
    )
    assert [(each["step"], each["value"]) for each in history["metrics"]] == [(3, 0.5)]


def wandb_records(path):
    """Yield the whole records of a W&B file: LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + size > len(data):
            return
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def finished_wandb_records(folder, count):
    """Return the records of some finished runs; W&B's own process may still be writing them."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        files = sorted(folder.glob("offline-run-*/*.wandb"))
        records = [each for file in files for each in wandb_records(file)]
        if sum(each.WhichOneof("record_type") == "exit" for each in records) == count:
            return records
        time.sleep(0.1)
    raise AssertionError(f"not {count} finished runs in {folder}")


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    """A resumed run continues the same one, in a second file, without repeating a step."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "pictures")
    queue = EventQueue(tmp_path / "search" / "trials" / "0001")
    start = {
        "event": "start",
        "time": 1.0,
        "id": "abc",
        "name": "trials/0001",
        "group": "search",
        "step": 0,
        "trackers": ["wandb"],
        "parameters": {"lr": [0.1, "sweep"]},
        "tags": {},
    }
    for status, steps in (("interrupted", (1, 2)), ("finished", (3, 4))):
        queue.append(start)
        for step in steps:
            values = {"step/loss": 1 / step}
            queue.append({"event": "metrics", "time": float(step), "step": step, "values": values})
        queue.append({"event": "finish", "time": 9.0, "status": status})
        assert send_rest(queue, "wandb", trackers.WeightsAndBiases)[1].error is None
    assert read_progress(queue, "wandb").memory == {"exit_code": 0}
    history, codes, config = [], [], {}
    for record in finished_wandb_records(tmp_path / "wandb", 2):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            assert (run.run_id, run.project, run.run_group) == ("abc", "pictures", "search")
        elif kind == "history":
            items = {
                each.key or each.nested_key[0]: each.value_json for each in record.history.item
            }
            history.append((record.history.step.num, float(items["step/loss"])))
        elif kind == "exit":
            codes.append(record.exit.exit_code)
        elif kind == "config":
            config |= {each.key: each.value_json for each in record.config.update}
    assert (config["lr"], json.loads(config["sources"])) == ("0.1", {"lr": "sweep"})
    assert history == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)]
    assert codes == [1, 0]


def test_track_sends_what_is_left_of_runs_in_a_folder(tmp_path, monkeypatch):
    folders = [tmp_path / "seed_0", tmp_path / "seed_1"]
    for folder in folders:
        make_steps(folder, make_listener(folder, trackers=("jsonl",)))
    settings = SimpleNamespace(paths=(str(tmp_path),), project=SimpleNamespace(run_dir="other"))
    monkeypatch.setattr(trackers.JsonLines, "_write", lambda *_: 1 / 0)
    with pytest.raises(UserError, match="2 runs"):
        track(settings)
    monkeypatch.undo()
    track(settings)
    for folder in folders:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["status"] == "finished"
    with pytest.raises(DataError):
        track(SimpleNamespace(paths=(str(tmp_path / "none"),)))


def test_test_metrics_are_reported_to_the_trackers_of_the_run(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(trackers.SENDER, "add", lambda *each: sent.append(each))
    trackers.log_test_metrics(tmp_path, {"accuracy": 0.5}, 7)
    assert sent == []
    make_steps(tmp_path, make_listener(tmp_path, trackers=("jsonl", "gone")))
    trackers.log_test_metrics(tmp_path, {"accuracy": 0.5}, 7)
    assert sent == [(tmp_path, ["jsonl"])]
    send_rest(EventQueue(tmp_path), "jsonl", trackers.JsonLines)
    lines = [json.loads(each) for each in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [each["status"] for each in lines if "status" in each] == ["finished"]
    assert (lines[-1]["step"], lines[-1]["test/accuracy"]) == (7, 0.5)


def test_json_lines_after_a_crash(tmp_path):
    """What was written, but not remembered, is not there twice."""
    make_steps(tmp_path, make_listener(tmp_path))
    queue = EventQueue(tmp_path)
    delivery = Delivery(queue, "jsonl", trackers.JsonLines)
    delivery.send()
    whole = (tmp_path / "metrics.jsonl").read_text()
    (queue.folder / "jsonl.json").unlink()
    send_rest(queue, "jsonl", trackers.JsonLines)
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_unknown_tracker_names_the_nearest():
    with pytest.raises(ChoiceError, match="mlflow"):
        trackers.find_tracker("mlfow")


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_missing_package_names_its_extra(name, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=rf"{name}.*\[{name}\]"):
        trackers.find_tracker(name)


def test_mlflow_without_server_and_database(monkeypatch):
    """As with mlflow-skinny, whose default MLflow's own database would be."""
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "mlflow" or None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        trackers.find_tracker("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert trackers.find_tracker("mlflow") is trackers.MLflow
