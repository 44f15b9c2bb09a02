"""Killed while it saves, again and again, a training still ends as the uninterrupted one."""

import signal

import pytest

from library.saving.checkpoints import read_state
from tests.helpers.killed import OPTIONS
from tests.helpers.small_run import assert_same, make_run
from tests.helpers.workers import Worker


@pytest.mark.slow
def test_killed_at_changes_of_the_disk_it_goes_on_as_uninterrupted(tmp_path):
    whole = make_run(tmp_path / "whole", **OPTIONS)
    whole.run()
    folders = {engine: tmp_path / engine for engine in ("loop", "fit")}
    for change in (2, 9, 16, 23):
        workers = {
            engine: Worker([str(folder), engine, str(change)], module="tests.helpers.killed")
            for engine, folder in folders.items()
        }
        for engine, worker in workers.items():
            code, said = worker.finish()
            assert code == -signal.SIGKILL, (engine, change, said)
    for folder in folders.values():
        run = make_run(folder, **OPTIONS)
        steps = [read_state(path)["step"] for path in run.checkpoints.paths()]
        assert 0 < max(steps) < whole.step, "it was killed on the way"
        run.run()
        assert_same(run, whole)
        assert (folder / "history.csv").read_text().count("\n") == 4
