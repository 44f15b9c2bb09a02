import errno
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from library.dataset.storage import (
    NotFoundError,
    explain_store_errors,
    is_remote,
    local_folder,
    open_store,
    read_url,
    version_of,
)
from library.errors import DataError, UnreachableError, UserError

fsspec = pytest.importorskip("fsspec")


def test_a_url_is_told_from_a_folder():
    assert is_remote("gs://bucket/images")
    assert not is_remote("dataset/train")


def test_each_url_has_a_local_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = local_folder("gs://a/b/train")
    assert folder.name == "train"
    assert tmp_path in folder.parents
    assert folder == local_folder("gs://a/b/train/")
    assert folder != local_folder("gs://c/b/train")
    assert folder.parent != local_folder("gs://a/b/train", "fetched").parent


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (FileNotFoundError("b/x"), NotFoundError, "there is no gs://b/x, or no bucket of that"),
        (PermissionError("b/x"), DataError, "gs://b/x may not be read by you, or you are not log"),
        (OSError("Forbidden: b/x\nno access"), DataError, "not logged in: Forbidden: b/x no acces"),
        (RuntimeError("Invalid Credentials, 401"), DataError, "may not be read by you"),
        (ConnectionError("reset"), UnreachableError, "^gs://b/x can't be read: reset$"),
        (TimeoutError(), UnreachableError, "gs://b/x can't be read: TimeoutError"),
        (RuntimeError("code 503, 4030 bytes"), UnreachableError, "can't be read: code 503"),
    ],
)
def test_what_a_store_raises_becomes_one_line(error, kind, text):
    with pytest.raises(kind, match=text) as caught, explain_store_errors("gs://b/x"):
        raise error
    assert "\n" not in str(caught.value)
    assert (caught.value.exit_code, kind.exit_code) == ((1, 1), (3, 3))[
        kind is not UnreachableError
    ]


def test_below_a_file_there_is_nothing_and_nothing_can_be_written():
    for done, kind in (("read", NotFoundError), ("written", UnreachableError)):
        with pytest.raises(kind), explain_store_errors("file:///a/b", done):
            raise NotADirectoryError("Not a directory")


def test_errors_of_ones_own_and_of_the_disk_are_left_alone():
    with pytest.raises(OSError, match="No space left") as caught, explain_store_errors("gs://b/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(caught.value, UserError)
    with pytest.raises(DataError, match=r"^mine$"), explain_store_errors("gs://b/x"):
        raise DataError("mine")


def test_unknown_stores_and_those_not_installed_are_one_line(monkeypatch):
    with pytest.raises(DataError, match=r"nonsense://x: Protocol not known"):
        open_store("nonsense://x")

    def lack(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.get_filesystem_class", lack)
    text = r"gs://b needs a package: Please install gcsfs; pip install '.\[remote\]'"
    with pytest.raises(DataError, match=text):
        open_store("gs://b")


def test_bytes_are_read_or_it_is_said_that_there_are_none(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert read_url(f"file://{tmp_path}/a") == b"content"
    with pytest.raises(NotFoundError, match=f"there is no file://{tmp_path}/b"):
        read_url(f"file://{tmp_path}/b")


def test_a_version_changes_with_what_a_store_tells():
    assert (
        version_of({"etag": "a"})
        == version_of({"etag": "a", "mtime": 3})
        != version_of({"etag": "b"})
    )
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    assert version_of({"created": moment}) == version_of({"created": moment.timestamp()})
    assert version_of({}) == version_of({"mtime": None})


def test_threads_share_a_store_only_if_that_is_made_for_it():
    class Shared(fsspec.get_filesystem_class("memory")):
        protocol = "shared"
        async_impl = True

    fsspec.register_implementation("shared", Shared, clobber=True)
    for url, is_shared in (("shared://b", True), ("memory://b", False)):
        with ThreadPoolExecutor(1) as executor:
            theirs, _ = executor.submit(open_store, url).result()
        assert (theirs is open_store(url)[0]) == is_shared
