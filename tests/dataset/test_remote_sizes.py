import pytest

from library.dataset.locations import NoLocation
from library.dataset.sources.remote import RemoteFacts
from library.errors import UnreachableError
from tests.conftest import write_colors

fsspec = pytest.importorskip("fsspec")
MEMORY = fsspec.get_filesystem_class("memory")


@pytest.fixture
def bucket(monkeypatch):
    """A store in memory with 3 folders of 40 files, and a count of what it is asked."""
    store, asked = fsspec.filesystem("memory"), {"ls": [], "info": []}
    for folder in ("a", "b", "c"):
        for number in range(40):
            store.pipe_file(f"/sizes/{folder}/{number}", bytes(number))
    info, ls = MEMORY.info, MEMORY.ls

    def counting_info(self, path):
        asked["info"].append(path)
        return info(self, path)

    def counting_ls(self, path, detail):
        asked["ls"].append(path)
        return ls(self, path, detail)

    # Each thread has a store of its own.
    monkeypatch.setattr(MEMORY, "info", counting_info)
    monkeypatch.setattr(MEMORY, "ls", counting_ls)
    yield asked
    store.rm("/sizes", recursive=True)


def urls(folder, numbers):
    return [f"memory://sizes/{folder}/{number}" for number in numbers]


def test_a_folder_is_listed_once_where_many_files_in_it_are_wanted(bucket):
    sizes = RemoteFacts()
    found = sizes.find([*urls("a", range(40)), *urls("b", range(3)), *urls("a", [40])])
    assert [each[0] for each in found[:43]] == [*range(40), *range(3)]
    assert isinstance(found[43][2], NoLocation)
    assert bucket["ls"] == ["/sizes/a"]
    assert sorted(bucket["info"]) == [f"/sizes/b/{number}" for number in range(3)]
    # One file after another of the same folder: asked for often enough, it is listed as well.
    for number in range(3, 40):
        assert sizes.find(urls("b", [number]))[0][0] == number
    assert bucket["ls"] == ["/sizes/a", "/sizes/b"]
    assert len(bucket["info"]) == 31


def test_a_stamp_is_the_same_whichever_way_it_was_asked_for(bucket):
    assert RemoteFacts().find(urls("a", range(40)))[:3] == RemoteFacts().find(urls("a", range(3)))
    assert len(bucket["ls"]) == 1


def test_a_file_on_disk_too(tmp_path):
    write_colors(tmp_path, 40, size=2)
    links = [f"file://{tmp_path}/red/{number:03d}.png" for number in range(40)]
    assert RemoteFacts().find(links)[:3] == RemoteFacts().find(links[:3])


def test_what_is_not_there_or_no_file_has_a_reason(bucket):
    few, many = RemoteFacts(), RemoteFacts()
    reasons = [each[2].reason for each in few.find(["memory://sizes/a", "memory://sizes/a/x"])]
    assert "folder" in reasons[0]
    assert {each[2].reason for each in many.find(urls("nowhere", range(40)))} == {reasons[1]}
    # Listing the folder told that already.
    assert len(bucket["info"]) == 2


def test_where_a_folder_must_not_be_listed_its_files_are_asked_for(bucket, monkeypatch):
    def refuse(self, path, detail):
        raise OSError("Forbidden: no listing here")

    monkeypatch.setattr(MEMORY, "ls", refuse)
    assert [each[0] for each in RemoteFacts().find(urls("a", range(40)))] == list(range(40))


def test_a_store_that_fails_is_no_reason_to_leave_files_out(bucket, monkeypatch):
    def fail(self, path, detail=True):
        raise ConnectionError("reset by peer")

    for name, count in (("ls", 40), ("info", 1)):
        monkeypatch.setattr(MEMORY, name, fail)
        with pytest.raises(UnreachableError, match="can't be read: reset by peer"):
            RemoteFacts().find(urls("a", range(count)))
    monkeypatch.undo()


def test_a_file_that_must_not_be_read_has_the_reason(bucket, monkeypatch):
    def refuse(self, path):
        raise PermissionError("no")

    monkeypatch.setattr(MEMORY, "info", refuse)
    ((_, _, location),) = RemoteFacts().find(urls("a", [1]))
    monkeypatch.undo()
    assert "may not be read by you" in location.reason
