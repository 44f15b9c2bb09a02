import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from library.dataset.locations import NoLocation
from library.dataset.manifest import read_manifest
from library.dataset.sources.remote import RemoteFacts, find_in_url
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
from tests.conftest import write_colors

fsspec = pytest.importorskip("fsspec")


def test_is_remote():
    assert is_remote("gs://bucket/images")
    assert not is_remote("dataset/train")


def test_local_folder_is_unique_per_url(monkeypatch, tmp_path):
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
        (IsADirectoryError(21, "Is a directory", "/tmp/run 401/b"), UnreachableError, "Is a dir"),
        (OSError("Timeout: 'gs://permission/run-401/x'"), UnreachableError, "can't be read: Time"),
    ],
)
def test_store_errors_become_one_line(error, kind, text):
    with pytest.raises(kind, match=text) as caught, explain_store_errors("gs://b/x"):
        raise error
    assert "\n" not in str(caught.value)
    assert (caught.value.exit_code, kind.exit_code) == ((1, 1), (3, 3))[
        kind is not UnreachableError
    ]


def test_store_is_opened_at_the_host_of_its_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        open_store(f"ftp://127.0.0.1:{port}/folder")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_path_below_file_is_missing_or_unwritable():
    for done, kind in (("read", NotFoundError), ("written", UnreachableError)):
        with pytest.raises(kind), explain_store_errors("file:///a/b", done):
            raise NotADirectoryError("Not a directory")


def test_own_and_disk_errors_pass_through():
    with pytest.raises(OSError, match="No space left") as caught, explain_store_errors("gs://b/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(caught.value, UserError)
    with pytest.raises(DataError, match=r"^mine$"), explain_store_errors("gs://b/x"):
        raise DataError("mine")


def test_unknown_or_missing_store_is_one_line(monkeypatch):
    with pytest.raises(DataError, match=r"nonsense://x: Protocol not known"):
        open_store("nonsense://x")

    def lack(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.get_filesystem_class", lack)
    text = r"gs://b needs a package: Please install gcsfs; pip install '.\[remote\]'"
    with pytest.raises(DataError, match=text):
        open_store("gs://b")


def test_read_url(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert read_url(f"file://{tmp_path}/a") == b"content"
    with pytest.raises(NotFoundError, match=f"there is no file://{tmp_path}/b"):
        read_url(f"file://{tmp_path}/b")


def test_version_of_changes_with_entry():
    assert (
        version_of({"etag": "a"})
        == version_of({"etag": "a", "mtime": 3})
        != version_of({"etag": "b"})
    )
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    assert version_of({"created": moment}) == version_of({"created": moment.timestamp()})
    assert version_of({}) == version_of({"mtime": None})


def test_threads_share_async_stores_only():
    class Shared(fsspec.get_filesystem_class("memory")):
        protocol = "shared"
        async_impl = True

    fsspec.register_implementation("shared", Shared, clobber=True)
    for url, is_shared in (("shared://b", True), ("memory://b", False)):
        with ThreadPoolExecutor(1) as executor:
            theirs, _ = executor.submit(open_store, url).result()
        assert (theirs is open_store(url)[0]) == is_shared


def main(*arguments):
    import convert_dataset

    convert_dataset.main(list(map(str, arguments)))


def test_remote_folder_is_found_and_read(tmp_path):
    write_colors(tmp_path / "images", 2)
    files = {file.name: file for file in find_in_url(f"file://{tmp_path}/images/")}
    assert len(files) == 6
    content = (tmp_path / "images" / "red" / "000.png").read_bytes()
    assert files["red/000.png"].label == "red"
    assert read_url(files["red/000.png"].location.url) == content


def test_conversion_to_url_uses_its_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    write_colors(tmp_path / "test", 2)
    for split in ("train", "test"):
        source, there = f"file://{tmp_path}/{split}", f"file://{tmp_path}/out/{split}"
        main("--dataset_dir", source, "--tfrecord_dir", there)
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "out/test: " in each]
    assert "6 images" in line
    assert read_manifest(tmp_path / "out" / "test", "test").examples == 6
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "orange")
    with pytest.raises(DataError, match="the class 'orange' is not among the classes of"):
        main("--dataset_dir", source, "--tfrecord_dir", there)


def test_empty_url_is_one_line(tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        list(find_in_url(f"file://{tmp_path}/nowhere"))


def test_remote_table_converts_like_local_one(tmp_path, capsys):
    write_colors(tmp_path / "images", 4)
    names = [path.relative_to(tmp_path) for path in sorted(tmp_path.glob("*/*/*"))]
    rows = [f"train,{name},{name.parts[1]}\n" for name in names]
    # One by its URL; and one that is not there.
    rows[5] = f"train,file://{tmp_path}/{names[5]},green\n"
    (tmp_path / "images.csv").write_text("".join([*rows, "train,images/red/9.png,red\n"]))
    for folder, source in (("a", tmp_path), ("b", f"file://{tmp_path}")):
        main(
            "--dataset_dir", f"{source}/images.csv/train", "--tfrecord_dir", tmp_path / folder,
            "--max_bad_fraction", 0.1,
        )  # fmt: skip
    local, remote = (read_manifest(tmp_path / each, "train") for each in ("a", "b"))
    assert [each.sha256 for each in remote.shards] == [each.sha256 for each in local.shards]
    assert local.examples == 12
    left_out = [(each["file"], each["reason"]) for each in remote.rejected]
    assert left_out == [("images/red/9.png", "can't be read: there is no such file")]
    page = tmp_path / "page.html"
    main("inspect", "--dataset_dir", f"file://{tmp_path}/images.csv", "--report", page)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "12"] in lines


def test_remote_split_is_verified(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    url = f"file://{tmp_path}/out/train"
    main("--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)
    main("--verify", "--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)
    verified = capsys.readouterr().out.splitlines()[-1]
    assert url in verified
    assert f"{tmp_path}/cache/image-classification-fetched-" in verified


def test_forbidden_remote_folder_is_error(tmp_path, monkeypatch):
    write_colors(tmp_path / "images", 2)
    kind = fsspec.get_filesystem_class("file")
    whole = kind.ls

    def refuse(self, path, **options):
        if path.endswith("green"):
            raise PermissionError("no")
        return whole(self, path, **options)

    monkeypatch.setattr(kind, "ls", refuse)
    with pytest.raises(DataError, match=r"images/green may not be read by you"):
        list(find_in_url(f"file://{tmp_path}/images"))


def test_unwritable_url_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    (tmp_path / "out").write_text("in the way")
    url = f"file://{tmp_path}/out/train"
    with pytest.raises(UserError, match=f"{url} can't be written: "):
        main("--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)


def test_unreachable_training_split_stops_conversion(tmp_path, monkeypatch):
    """Else the other split's classes would be numbered by what is in it alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "test", 2)

    def fail(self, path, **options):
        raise ConnectionError("reset by peer")

    kind = fsspec.get_filesystem_class("file")
    for name in ("cat_file", "info"):
        monkeypatch.setattr(kind, name, fail)
    with pytest.raises(UnreachableError, match=r"train.manifest.json can't be read: reset by peer"):
        main("--dataset_dir", tmp_path / "test", "--tfrecord_dir", f"file://{tmp_path}/out/test")


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


def test_facts_list_folder_of_many_files_once(bucket):
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


def test_facts_are_same_listed_or_single(bucket):
    assert RemoteFacts().find(urls("a", range(40)))[:3] == RemoteFacts().find(urls("a", range(3)))
    assert len(bucket["ls"]) == 1


def test_facts_are_same_listed_or_single_on_disk(tmp_path):
    write_colors(tmp_path, 40, size=2)
    links = [f"file://{tmp_path}/red/{number:03d}.png" for number in range(40)]
    assert RemoteFacts().find(links)[:3] == RemoteFacts().find(links[:3])


def test_facts_of_missing_file_have_reason(bucket):
    few, many = RemoteFacts(), RemoteFacts()
    reasons = [each[2].reason for each in few.find(["memory://sizes/a", "memory://sizes/a/x"])]
    assert "folder" in reasons[0]
    assert {each[2].reason for each in many.find(urls("nowhere", range(40)))} == {reasons[1]}
    # Listing the folder told that already.
    assert len(bucket["info"]) == 2


def test_facts_of_unlistable_folder_are_single(bucket, monkeypatch):
    def refuse(self, path, detail):
        raise OSError("Forbidden: no listing here")

    monkeypatch.setattr(MEMORY, "ls", refuse)
    assert [each[0] for each in RemoteFacts().find(urls("a", range(40)))] == list(range(40))


def test_failing_store_is_not_a_reason(bucket, monkeypatch):
    def fail(self, path, detail=True):
        raise ConnectionError("reset by peer")

    for name, count in (("ls", 40), ("info", 1)):
        monkeypatch.setattr(MEMORY, name, fail)
        with pytest.raises(UnreachableError, match="can't be read: reset by peer"):
            RemoteFacts().find(urls("a", range(count)))
    monkeypatch.undo()


def test_forbidden_file_has_reason(bucket, monkeypatch):
    def refuse(self, path):
        raise PermissionError("no")

    monkeypatch.setattr(MEMORY, "info", refuse)
    ((_, _, location),) = RemoteFacts().find(urls("a", [1]))
    monkeypatch.undo()
    assert "may not be read by you" in location.reason
