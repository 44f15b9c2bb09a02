import signal
import subprocess
import sys
from pathlib import Path

import pytest

from library import files
from library.errors import UserError
from library.files import (
    explain_write_errors,
    find_damage,
    new_file,
    new_folder,
    remove_partials,
    restore_folder,
    seal_folder,
    sha256_of,
    write_file,
)


class CrashError(Exception):
    pass


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_file_appears_whole_with_its_folders(tmp_path):
    write_file(tmp_path / "a" / "b.txt", "Grüße")
    assert (tmp_path / "a" / "b.txt").read_text("utf-8") == "Grüße"
    assert names(tmp_path / "a") == ["b.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_file(tmp_path / "a", b"old")

    def crash():
        with new_file(tmp_path / "a") as file:
            file.write(b"new")
            raise CrashError

    with pytest.raises(CrashError):
        crash()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
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
def test_a_kill_while_writing_leaves_the_old_file(tmp_path, point):
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


def test_a_folder_is_replaced_whole(tmp_path):
    for version in ("1", "2"):
        write_version(tmp_path / "best", version)
        assert version_in(tmp_path / "best") == version
        assert names(tmp_path) == ["best"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
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
def test_a_crash_between_the_renames_loses_no_version(tmp_path, monkeypatch, renames_done):
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


def test_partials_that_are_folders_or_links_are_removed(tmp_path):
    (tmp_path / ".a.1.partial").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / ".b.2.partial").symlink_to(tmp_path / "kept")
    assert remove_partials(tmp_path) == [".a.1.partial", ".b.2.partial"]
    assert names(tmp_path) == ["kept"]


def test_the_hash_is_that_of_the_bytes(tmp_path):
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


def test_a_sealed_folder_is_undamaged(sealed):
    assert find_damage(sealed) is None


def test_any_flipped_byte_is_found(sealed):
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


def test_the_seal_cut_at_any_byte_is_found(sealed):
    content = (sealed / files.SEAL).read_bytes().rstrip()
    for length in range(len(content)):
        (sealed / files.SEAL).write_bytes(content[:length])
        assert find_damage(sealed), length


def test_the_words_for_damage_name_the_file(sealed):
    (sealed / "a").unlink()
    assert find_damage(sealed) == "a is missing"
    (sealed / "a").write_bytes(b"1234x")
    assert find_damage(sealed) == "a is not what was written"
    (sealed / files.SEAL).write_text("[]")
    assert find_damage(sealed) == "hashes.json cannot be read"
    (sealed / files.SEAL).unlink()
    assert find_damage(sealed) == "hashes.json is missing"


def test_a_folder_in_the_way_is_an_os_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        write_file(tmp_path / "a" / "b", b"")
    assert names(tmp_path) == ["a"]


def test_what_could_not_be_saved_is_one_line_that_tells_what_is_left(tmp_path):
    (tmp_path / "a").write_text("")
    message = r"^the best could not be saved \(File exists\); what was saved before is intact: "
    with pytest.raises(UserError, match=message), explain_write_errors("the best"):
        write_file(tmp_path / "a" / "b", b"")
    with pytest.raises(UserError, match=r"\(odd\)"), explain_write_errors("the best"):
        raise OSError("odd")
