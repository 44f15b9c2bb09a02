import functools
import hashlib
import http.server
import io
import random
import re
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.models.hub_download import deletion_hint, find_gap, hash_module, resolve_module
from tests.models.test_saved_model import IMAGES, save_module


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "module"
    save_module(folder)
    return folder


@pytest.fixture
def module(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "module")


def pack(module, path, inside=""):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(module, arcname=inside or ".")
    return path


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as tfhub.dev does: with an archive, when asked for the compressed form."""

    def __init__(self, archive, asked, *arguments):
        self.archive, self.asked = archive, asked
        super().__init__(*arguments)

    def do_GET(self):
        self.asked.append(self.path)
        is_known = self.path == "/mobilenet/4?tf-hub-format=compressed"
        content = self.archive.read_bytes() if is_known else b""
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(module, tmp_path):
    asked = []
    archive = pack(module, tmp_path / "served.tar.gz")
    handler = functools.partial(Server, archive, asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{opened.server_port}", asked
        opened.shutdown()
        thread.join()


def is_whole(folder):
    return np.allclose(tf.saved_model.load(folder)(IMAGES).shape, (4, 5))


def test_a_folder_is_used_where_it_lies(module, cache):
    assert resolve_module(module) == module
    assert not cache.exists()


@pytest.mark.parametrize("inside", ["", "module", "deep/module"])
def test_an_archive_is_unpacked_once(module, tmp_path, cache, inside):
    archive = pack(module, tmp_path / "module.tar.gz", inside)
    folder = resolve_module(archive)
    assert is_whole(folder)
    assert folder.parent == cache
    stamp = folder.stat().st_mtime_ns
    assert resolve_module(archive) == folder
    assert folder.stat().st_mtime_ns == stamp


def test_a_zip_is_an_archive_too(module, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", module)
    assert hash_module(resolve_module(archive)) == hash_module(module)


def test_a_url_is_fetched_once_and_asks_for_the_compressed_form(module, server):
    url, asked = server
    folder = resolve_module(f"{url}/mobilenet/4")
    assert hash_module(folder) == hash_module(module)
    assert resolve_module(f"{url}/mobilenet/4") == folder
    assert asked == ["/mobilenet/4?tf-hub-format=compressed"]


def test_a_half_filled_cache_is_filled_again(server):
    url, asked = server
    folder = resolve_module(f"{url}/mobilenet/4")
    # As TensorFlow Hub leaves it when it is killed: a lock that nobody holds, a part of the files.
    folder.with_suffix(".lock").write_text("someone.0123")
    (folder / "saved_model.pb").unlink()
    assert is_whole(resolve_module(f"{url}/mobilenet/4"))
    assert len(asked) == 2


def test_a_half_filled_cache_without_network_is_one_line(cache):
    url = "http://127.0.0.1:9/x"
    folder = cache / hashlib.sha1(url.encode()).hexdigest()
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / "variables" / "variables.data-00000-of-00001").touch()
    with pytest.raises(UserError, match="the server cannot be reached") as caught:
        resolve_module(url)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_one_line(server):
    with pytest.raises(UserError, match="the server answers 404 Not Found"):
        resolve_module(f"{server[0]}/mobilenet/5")


def test_a_server_that_sends_round_in_circles_is_one_line():
    class Circle(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Circle) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with pytest.raises(UserError, match=r"the server answers 302 .+ infinite loop; ") as caught:
            resolve_module(f"http://127.0.0.1:{opened.server_port}/a")
        opened.shutdown()
        thread.join()
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"Not a directory: {tmp_path}/file/cache; "):
        resolve_module(pack(module, tmp_path / "module.tar.gz"))


def test_no_network_is_one_line_at_once():
    with pytest.raises(
        UserError, match=r"cannot load the module http://127\.0\.0\.1:9/x: the serv"
    ):
        resolve_module("http://127.0.0.1:9/x")


def test_an_unreachable_bucket_is_one_line_at_once(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the server cannot be reached"):
        resolve_module("gs://bucket/module")


def test_a_bucket_is_copied(module, monkeypatch):
    import library.models.hub_download as room

    # A folder stands for the bucket: TensorFlow reads both through the same functions.
    monkeypatch.setitem(room._FINDERS, "file", room._find_in_a_bucket)
    monkeypatch.setattr(room, "_check_reachable", lambda url: None)
    folder = resolve_module(f"file://{module}")
    assert folder != module
    assert hash_module(folder) == hash_module(module)


def test_a_wrong_handle_is_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        resolve_module(tmp_path / "nothing")
    text = str(caught.value)
    assert text.startswith(f"cannot load the module {tmp_path / 'nothing'}: there is no such file")
    assert text.endswith(
        "--hub_handle takes a URL, a folder, an archive or gs:// with a SavedModel"
    )
    assert "\n" not in text


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        ("http://127.0.0.1:9/a b", "URL can't contain control characters"),
        ("http://127.0.0.1:port/a", "nonnumeric port: 'port'"),
        ("http://[127.0.0.1/a", "Invalid IPv6 URL"),
        ("~nobody-of-that-name/a", "Could not determine home directory; --hub_handle takes"),
    ],
)
def test_a_handle_that_nobody_can_read_is_one_line(handle, words):
    with pytest.raises(UserError, match="cannot load the module") as caught:
        resolve_module(handle)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"this is no HTTP\r\n\r\n",
        # A chunk that ends before the length that it tells.
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n0123",
    ],
)
def test_a_server_that_answers_nonsense_is_one_line(answer):
    class Nonsense(http.server.BaseHTTPRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(answer)

    with http.server.HTTPServer(("127.0.0.1", 0), Nonsense) as opened:
        thread = threading.Thread(target=opened.handle_request, daemon=True)
        thread.start()
        with pytest.raises(UserError, match=r"the server's answer is not whole \(.+\); --hub"):
            resolve_module(f"http://127.0.0.1:{opened.server_port}/a")
        thread.join()


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(UserError, match="neither a folder nor a tar or zip archive"):
        resolve_module(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1000])
def test_a_cut_archive_is_one_line_and_leaves_nothing(module, tmp_path, cache, length):
    archive = pack(module, tmp_path / "module.tar.gz")
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(UserError, match="cannot load the module"):
        resolve_module(archive)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.fixture(params=["gztar", "bztar", "xztar", "zip"])
def small(request, tmp_path):
    """An archive of few bytes, and what its graph's file holds."""
    (tmp_path / "small").mkdir()
    content = random.Random(0).randbytes(100)
    (tmp_path / "small" / "saved_model.pb").write_bytes(content)
    return shutil.make_archive(tmp_path / "archive", request.param, tmp_path / "small"), content


def test_a_flipped_bit_is_one_line_or_changes_nothing(small, tmp_path, monkeypatch):
    # Hundreds of folders need not lie safe on the disk.
    monkeypatch.setattr("library.files._sync_tree", lambda folder: None)
    monkeypatch.setattr("library.files.sync_folder", lambda folder: None)
    archive, content = small
    whole = Path(archive).read_bytes()
    refused = 0
    # Every few bytes, and all of the last ones: some kinds have their checksum there.
    for at in {*range(0, len(whole), len(whole) // 100), *range(len(whole) - 12, len(whole))}:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        (tmp_path / "flipped").write_bytes(flipped)
        try:
            found = resolve_module(tmp_path / "flipped")
        except UserError:
            refused += 1
        else:
            assert (found / "saved_model.pb").read_bytes() == content, at
    assert refused > 20


def test_an_encrypted_zip_is_one_line(module, tmp_path):
    path = Path(shutil.make_archive(tmp_path / "encrypted", "zip", module))
    content = bytearray(path.read_bytes())
    # The lowest bit of the flags, in the files' headers and in the directory, says so.
    for mark, flags in ((rb"PK\x03\x04", 6), (rb"PK\x01\x02", 8)):
        for header in re.finditer(mark, content):
            content[header.start() + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted, password required for extraction; --hub"):
        resolve_module(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), r"holds no saved_model\.pb"),
        (lambda f: (f / "variables/variables.index").unlink(), r"variables\.index is missing"),
        (lambda f: next(f.glob("variables/*data*")).unlink(), "is not complete"),
    ],
)
def test_what_a_module_lacks_is_named(module, change, words):
    assert find_gap(module) is None
    change(module)
    with pytest.raises(UserError, match=words):
        resolve_module(module)


def tar_with(path, name, kind=tarfile.REGTYPE, target="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../evil", tarfile.REGTYPE, r"'\.\./evil' in the archive leads out of it"),
        ("/evil", tarfile.REGTYPE, "'/evil' in the archive leads out of it"),
        ("a/../../evil", tarfile.REGTYPE, "leads out of it"),
        ("link", tarfile.SYMTYPE, "'link' in the archive is a link or a device"),
        ("link", tarfile.LNKTYPE, "is a link or a device"),
        ("pipe", tarfile.FIFOTYPE, "is a link or a device"),
    ],
)
def test_a_hostile_tar_is_refused(tmp_path, name, kind, words):
    with pytest.raises(UserError, match=words):
        resolve_module(tar_with(tmp_path / "hostile.tgz", name, kind, "/etc/passwd"))
    assert not (tmp_path / "evil").exists()


def test_a_hostile_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    for name, words in (("../evil", "leads out of it"), (link, "is a link")):
        with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
            archive.writestr(name, "/etc/passwd")
        with pytest.raises(UserError, match=words):
            resolve_module(tmp_path / "hostile.zip")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with pytest.raises(UserError, match="the archive unpacks to 5,000,000 bytes"):
        resolve_module(tar_with(tmp_path / "bomb.tgz", "zeros", size=5_000_000))


def test_folders_named_like_files_are_refused(module, tmp_path):
    archive = pack(module, tmp_path / "odd.tar.gz", "variables")
    with pytest.raises(UserError, match="its folders are named like its files"):
        resolve_module(archive)


def test_the_hash_pins_a_module_wherever_it_comes_from(module, tmp_path):
    archive = pack(module, tmp_path / "module.tar.gz")
    pin = hash_module(module)
    assert resolve_module(archive, pin.upper())
    with (module / "saved_model.pb").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        UserError, match=r"is not the one expected: its hash is [0-9a-f]{64}, hub_s"
    ):
        resolve_module(module, pin)


def test_what_was_fetched_can_be_deleted(module, tmp_path):
    found = resolve_module(pack(module, tmp_path / "module.tar.gz"))
    assert deletion_hint(found) == f"; delete {found}, and it is fetched again"
    assert deletion_hint(module) == ""
    with pytest.raises(UserError, match=rf"; delete {found}, and it is fetched again$"):
        resolve_module(tmp_path / "module.tar.gz", "0" * 64)
