import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from library.errors import UserError
from library.files import locked
from tests.conftest import ROOT

HOLD = """
import sys, time
from library.files import locked
with locked(sys.argv[1], "", ""):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path):
    path = tmp_path / "folder" / ".lock"
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"locked\n"
        message = rf"^{{it}} is in use by process {holder.pid} on .*: wait$"
        with pytest.raises(UserError, match=message), locked(path, "{it}", "wait"):
            pass
        holder.send_signal(signal.SIGKILL)
    assert path.exists()
    with locked(path, "", ""):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_the_file_is_gone_after_an_error_too(tmp_path):
    with pytest.raises(InterruptedError), locked(tmp_path / "lock", "", ""):
        raise InterruptedError
    assert not list(tmp_path.iterdir())


def test_of_many_who_want_it_never_two_have_it(tmp_path):
    inside, most, turns = [], [], []

    def want():
        while len(turns) < 300:
            try:
                with locked(tmp_path / "lock", "", ""):
                    inside.append(1)
                    most.append(len(inside))
                    turns.append(1)
                    inside.pop()
            except UserError:
                pass

    threads = [threading.Thread(target=want) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert max(most) == 1


def test_waiting_for_a_lock_logs_its_holder_once(tmp_path, capsys):
    log, order = [], []

    def wait():
        with locked(tmp_path / "lock", "it", wait=True):
            order.append("second")

    with locked(tmp_path / "lock", "it"):
        thread = threading.Thread(target=wait)
        thread.start()
        while not log:
            log += capsys.readouterr().err.splitlines()
            time.sleep(0.01)
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    log += capsys.readouterr().err.splitlines()
    (line,) = log
    assert f"process {os.getpid()} on " in line


def test_a_file_system_without_locks_does_not_stop_anybody(tmp_path, monkeypatch):
    def unsupported(file, flags):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    inside = []
    with locked(tmp_path / "lock", "", ""), locked(tmp_path / "lock", "", ""):
        inside.append("both")
    assert inside == ["both"]
