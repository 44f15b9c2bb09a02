"""Trainings whose run is in a bucket of an object store, which may be away."""

import csv
import json
import threading
import time

import numpy as np
import pytest

import run
from library.errors import run_main
from library.remote_runs import lease, uploads
from library.remote_runs.generations import RemoteFolder
from library.remote_runs.local_copy import LocalCopy
from library.saving.checkpoints import Checkpoints
from library.training.listeners import Listener
from project import assembly
from tests.helpers.workers import Worker

EPOCHS = 10


@pytest.fixture
def at(options):
    """Return options of a training whose run is at a URL or in a folder."""
    words = list(options)
    words[words.index("--train_epochs") + 1] = str(EPOCHS)

    def make(place, *more):
        words[words.index("--run_dir") + 1] = str(place)
        return [*words, *more]

    return make


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
    monkeypatch.setattr(uploads, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)


def results(folder):
    """All that a training leaves, but for what depends on the time and the place."""
    newest = Checkpoints(folder / "checkpoints").find_latest()
    with np.load(newest / "variables.npz") as file:
        variables = [file[name].tobytes() for name in sorted(file.files)]
    with (folder / "history.csv").open() as file:
        rows = [{**row, "images_per_second": ""} for row in csv.DictReader(file)]
    best = json.loads((folder / "best" / "metrics.json").read_text())
    return newest.name, variables, rows, best


def restored(url, folder):
    LocalCopy(RemoteFolder(url), folder).restore(with_bulk=True)
    return folder


def at_evaluations(monkeypatch, **actions):
    """Call a function at the evaluation of an epoch, epoch_2=function."""
    make_listeners = assembly.default_listeners

    class Actor(Listener):
        def on_evaluation(self, evaluation):
            actions.get(f"epoch_{evaluation.row['epoch']}", lambda: None)()

    monkeypatch.setattr(assembly, "default_listeners", lambda **_: [*make_listeners(), Actor()])


@pytest.mark.slow
def test_killed_training_resumes_on_an_empty_disk_while_the_store_is_away(
    at, object_store, bucket, tmp_path, monkeypatch, caplog
):
    url = f"{bucket}/runs/a"
    run.main(at(tmp_path / "undisturbed"))
    environ = {**object_store.environ, "XDG_CACHE_HOME": str(tmp_path / "disk")}
    words = ["2", *map(str, at(url))]
    code, said = Worker(words, environ, module="tests.helpers.killed_upload").finish()
    assert code == -9, said
    step = results(restored(url, tmp_path / "killed"))[0]
    assert step < results(tmp_path / "undisturbed")[0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))

    def start_later():
        while f"nothing could be uploaded to {url}" not in caplog.text:
            time.sleep(0.1)
        object_store.start()

    def stop():
        object_store.stop()
        threading.Thread(target=start_later).start()

    at_evaluations(monkeypatch, **{f"epoch_{EPOCHS}": stop})
    run.main(at(url))
    assert results(restored(url, tmp_path / "again")) == results(tmp_path / "undisturbed")
    assert f"{url} has everything again" in caplog.text


@pytest.mark.slow
def test_store_that_does_not_answer_at_the_end(
    at, object_store, bucket, tmp_path, monkeypatch, capsys
):
    url = f"{bucket}/runs/a"
    with monkeypatch.context() as patch:
        at_evaluations(patch, epoch_2=object_store.suspend)
        code = run_main(run.main, at(url, "--upload_wait_secs", "1"), "run.py")
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 1
    assert "checkpoints/step_" in error
    assert str(tmp_path / "disk") in error
    object_store.resume()
    assert run_main(run.main, at(url), "run.py") == 0
    assert len(results(restored(url, tmp_path / "again"))[2]) == EPOCHS
