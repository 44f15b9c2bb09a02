import ast
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from library import files
from library.errors import CheckpointError, UserError
from library.files import (
    explain_write_errors,
    find_damage,
    locked,
    new_file,
    new_folder,
    parse_json,
    read_regular_file,
    remove_partials,
    restore_folder,
    seal_folder,
    sha256_of,
    write_file,
)
from tests.helpers.ready_process import ready_process


class CrashError(Exception):
    pass


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_write_file_makes_folders(tmp_path):
    write_file(tmp_path / "a" / "b.txt", "Grüße")
    assert (tmp_path / "a" / "b.txt").read_text("utf-8") == "Grüße"
    assert names(tmp_path / "a") == ["b.txt"]


def test_failed_write_keeps_old_file(tmp_path):
    write_file(tmp_path / "a", b"old")

    def crash():
        with new_file(tmp_path / "a") as file:
            file.write(b"new")
            raise CrashError

    with pytest.raises(CrashError):
        crash()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_full_disk_keeps_old_file(tmp_path):
    write_file(tmp_path / "a", b"old")
    code = (
        "import resource, signal, sys; from library.files import write_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_file(sys.argv[1], b'x' * 2000)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True)
    assert b"File too large" in done.stderr
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("point", ["fsync", "rename"])
def test_kill_while_writing_keeps_old_file(tmp_path, point):
    write_file(tmp_path / "a", b"old")
    code = (
        "import os, pathlib, signal, sys; from library.files import write_file\n"
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{'os.fsync' if point == 'fsync' else 'pathlib.Path.replace'} = die\n"
        "write_file(sys.argv[1], b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    leftovers = [name for name in names(tmp_path) if name != "a"]
    assert len(leftovers) == 1
    assert remove_partials(tmp_path) == leftovers
    assert names(tmp_path) == ["a"]


def write_version(folder, version):
    with new_folder(folder) as partial:
        (partial / "inside").mkdir()
        (partial / "inside" / "version").write_text(version)


def version_in(folder):
    return (folder / "inside" / "version").read_text()


def test_new_folder_replaces_old_one(tmp_path):
    for version in ("1", "2"):
        write_version(tmp_path / "best", version)
        assert version_in(tmp_path / "best") == version
        assert names(tmp_path) == ["best"]


def test_failed_folder_keeps_old_one(tmp_path):
    write_version(tmp_path / "best", "1")

    def crash():
        with new_folder(tmp_path / "best") as partial:
            (partial / "half").write_text("")
            raise CrashError

    with pytest.raises(CrashError):
        crash()
    assert version_in(tmp_path / "best") == "1"
    assert names(tmp_path) == ["best"]


@pytest.mark.parametrize("renames_done", [0, 1, 2])
def test_crash_between_renames_loses_nothing(tmp_path, monkeypatch, renames_done):
    write_version(tmp_path / "best", "1")
    rename, done = Path.rename, []

    def crash_later(self, target):
        if len(done) == renames_done:
            raise CrashError
        done.append(target)
        return rename(self, target)

    def crash_too(*_, **__):
        if len(done) == renames_done == 2:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_later)
        # What runs after a crash must not be undone by the tidying that a crash would skip.
        patch.setattr(files.shutil, "rmtree", crash_too)
        with pytest.raises(CrashError):
            write_version(tmp_path / "best", "2")
    restore_folder(tmp_path / "best")
    remove_partials(tmp_path)
    assert version_in(tmp_path / "best") == ("2" if renames_done == 2 else "1")
    assert names(tmp_path) == ["best"]


def test_remove_partials_removes_folders_and_links(tmp_path):
    (tmp_path / ".a.1.partial").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / ".b.2.partial").symlink_to(tmp_path / "kept")
    assert remove_partials(tmp_path) == [".a.1.partial", ".b.2.partial"]
    assert names(tmp_path) == ["kept"]


def test_sha256_of(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "sealed"
    (folder / "inside").mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    (folder / "inside" / "b").write_bytes(b"67")
    seal_folder(folder)
    return folder


def test_sealed_folder_is_undamaged(sealed):
    assert find_damage(sealed) is None


def test_find_damage_finds_any_flipped_byte(sealed):
    for path in (sealed / "a", sealed / "inside" / "b", sealed / files.SEAL):
        content = path.read_bytes()
        for position in range(len(content)):
            changed = bytearray(content)
            changed[position] ^= 1
            path.write_bytes(changed)
            # White space may change in the seal itself: nothing is lost by that.
            if path.name == files.SEAL and changed.split() == content.split():
                continue
            assert find_damage(sealed), (path, position)
        path.write_bytes(content)


def test_find_damage_finds_truncated_seal(sealed):
    content = (sealed / files.SEAL).read_bytes().rstrip()
    for length in range(len(content)):
        (sealed / files.SEAL).write_bytes(content[:length])
        assert find_damage(sealed), length


@pytest.mark.parametrize("name", ["a", files.SEAL])
def test_find_damage_does_not_call_unreadable_files_damaged(sealed, name):
    (sealed / name).chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # The superuser can read every file.
            os.seteuid(65534)
        with pytest.raises(CheckpointError, match=r"can't be read"):
            find_damage(sealed)
    finally:
        os.seteuid(user)


def test_find_damage_names_file(sealed):
    (sealed / "a").unlink()
    assert find_damage(sealed) == "a is missing"
    (sealed / "a").write_bytes(b"1234x")
    assert find_damage(sealed) == "a is not what was written"
    (sealed / files.SEAL).write_text("[]")
    assert find_damage(sealed) == "hashes.json cannot be read"
    (sealed / files.SEAL).unlink()
    assert find_damage(sealed) == "hashes.json is missing"


def test_file_instead_of_folder_is_os_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        write_file(tmp_path / "a" / "b", b"")
    assert names(tmp_path) == ["a"]


def test_explain_write_errors(tmp_path):
    (tmp_path / "a").write_text("")
    message = r"^the best could not be saved \(File exists\); "
    with pytest.raises(UserError, match=message), explain_write_errors("the best"):
        write_file(tmp_path / "a" / "b", b"")
    with pytest.raises(UserError, match=r"\(odd\)"), explain_write_errors("the best"):
        raise OSError("odd")


HOLD = """
import sys
from library.files import locked
with locked(sys.argv[1], "", ""):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_lock_refuses_second_process_until_first_is_dead(tmp_path):
    path = tmp_path / "folder" / ".lock"
    with ready_process(HOLD, path) as holder:
        message = rf"^{{it}} is in use by process {holder.pid} on .*: wait$"
        with pytest.raises(UserError, match=message), locked(path, "{it}", "wait"):
            pass
    assert path.exists()
    with locked(path, "", ""):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_lock_file_is_deleted_after_error(tmp_path):
    with pytest.raises(InterruptedError), locked(tmp_path / "lock", "", ""):
        raise InterruptedError
    assert not list(tmp_path.iterdir())


def test_lock_has_one_holder_at_a_time(tmp_path):
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


def test_waiting_for_lock_logs_holder_once(tmp_path, capsys):
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
    thread.join(60)
    assert order == ["first", "second"]
    log += capsys.readouterr().err.splitlines()
    (line,) = log
    assert f"process {os.getpid()} on " in line


def test_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    def unsupported(file, flags):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    inside = []
    with locked(tmp_path / "lock", "", ""), locked(tmp_path / "lock", "", ""):
        inside.append("both")
    assert inside == ["both"]


def test_text_files_are_utf8_whatever_the_locale():
    """Complements ruff's PLW1514, which does not see the type of every path."""
    for path in sorted(Path(files.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_method and node.func.attr in ("read_text", "write_text"):
                assert "encoding" in ast.unparse(node), f"{path}, line {node.lineno}"


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_writing_removes_what_killed_processes_left_of_the_same(tmp_path, new):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    here = f"{files._HOST}01234567.partial"
    names = {
        "dead": f".x.{int(dead.stdout)}.{here}",
        "running": f".x.{os.getppid()}.{here}",
        "of another machine": f".x.{int(dead.stdout)}.00000001234567.partial",
        "of another file": f".x.y.{int(dead.stdout)}.{here}",
        "of one with a number": f".x.{int(dead.stdout)}.{os.getppid()}.{here}",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
    with new(tmp_path / "x"):
        pass
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {*names.values(), "x"} - {names["dead"]}


def test_parse_json_refuses_deep_brackets():
    assert parse_json(b'{"a": [1, "\xc3\xbc"]}') == {"a": [1, "ü"]}
    for text in ("[" * 100_000, '{"a":' * 100_000, "[1", b"\xff", "9" * 5000):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)


def test_pipe_is_not_a_regular_file(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert read_regular_file(tmp_path / "file") == b"bytes"
    os.mkfifo(tmp_path / "pipe")
    for read in (read_regular_file, sha256_of):
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "pipe")
    os.mkfifo(tmp_path / "hashes.json")
    assert find_damage(tmp_path) == "hashes.json cannot be read"
