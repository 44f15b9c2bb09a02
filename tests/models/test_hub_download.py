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
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.models import hub_download
from library.models.hub_download import deletion_hint, find_missing, hash_module, resolve_module
from tests.helpers.hub_modules import IMAGES, save_module


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


@contextmanager
def serving(handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{opened.server_port}"
        opened.shutdown()
        thread.join()


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Server(QuietHandler):
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


@pytest.fixture
def server(module, tmp_path):
    asked = []
    archive = pack(module, tmp_path / "served.tar.gz")
    with serving(functools.partial(Server, archive, asked)) as url:
        yield url, asked


def is_whole(folder):
    return np.allclose(tf.saved_model.load(folder)(IMAGES).shape, (4, 5))


def error_of(handle, sha256=None):
    with pytest.raises(UserError, match=re.escape(str(handle))) as caught:
        resolve_module(handle, sha256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_is_used_in_place(module, cache):
    assert resolve_module(module) == module
    assert not cache.exists()


@pytest.mark.parametrize("inside", ["", "module", "deep/module"])
def test_archive_is_unpacked_once(module, tmp_path, cache, inside):
    archive = pack(module, tmp_path / "module.tar.gz", inside)
    folder = resolve_module(archive)
    assert is_whole(folder)
    assert cache in folder.parents
    stamp = folder.stat().st_mtime_ns
    assert resolve_module(archive) == folder
    assert folder.stat().st_mtime_ns == stamp


def test_zip_is_unpacked(module, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", module)
    assert hash_module(resolve_module(archive)) == hash_module(module)


def test_url_is_downloaded_once_in_compressed_form(module, server):
    url, asked = server
    folder = resolve_module(f"{url}/mobilenet/4")
    assert hash_module(folder) == hash_module(module)
    assert resolve_module(f"{url}/mobilenet/4") == folder
    assert asked == ["/mobilenet/4?tf-hub-format=compressed"]


def test_lock_of_another_download_is_named(server, cache, capsys):
    handle = f"{server[0]}/mobilenet/4"
    folder = resolve_module(handle)
    lock = folder.with_suffix(".lock")
    lock.write_text("host.0123")
    assert resolve_module(handle) == folder
    assert str(lock) in capsys.readouterr().err


def test_incomplete_module_in_the_cache_names_the_folder_to_delete(server):
    folder = resolve_module(f"{server[0]}/mobilenet/4")
    (folder / "saved_model.pb").unlink()
    assert f"delete {folder}" in error_of(f"{server[0]}/mobilenet/4")
    shutil.rmtree(folder)
    assert is_whole(resolve_module(f"{server[0]}/mobilenet/4"))


def test_incomplete_download_in_the_cache_is_named_without_network(cache):
    url = "http://127.0.0.1:9/x"
    folder = cache / hashlib.sha1(url.encode()).hexdigest()
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / "variables" / "variables.data-00000-of-00001").touch()
    assert f"delete {folder}" in error_of(url)


def test_unknown_module_is_404(server):
    assert "404" in error_of(f"{server[0]}/mobilenet/5")


def test_redirects_in_a_circle():
    class Circle(QuietHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()

    with serving(Circle) as url:
        assert "302" in error_of(f"{url}/a")


def test_unwritable_cache_is_named(module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").touch()
    archive = pack(module, tmp_path / "module.tar.gz")
    assert f"Not a directory: {tmp_path}/file/cache" in error_of(archive)


def test_silent_server_times_out(monkeypatch):
    released = threading.Event()

    class Silent(QuietHandler):
        def do_GET(self):
            released.wait(30)

    timeout = hub_download.socket_timeout
    monkeypatch.setattr(hub_download, "socket_timeout", lambda: timeout(0.2))
    with serving(Silent) as url:
        assert "timed out" in error_of(f"{url}/a")
        released.set()


def test_unreachable_server():
    assert "cannot be reached" in error_of("http://127.0.0.1:9/x")


def test_unreachable_bucket(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert "cannot be reached" in error_of("gs://bucket/module")


def test_bucket_is_copied(module, cache):
    # A folder stands for the bucket: TensorFlow reads both through the same functions.
    folder = resolve_module(f"file://{module}")
    assert cache in folder.parents
    assert hash_module(folder) == hash_module(module)


def test_absent_folder_names_the_option(tmp_path):
    assert "--hub_handle" in error_of(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        ("http://127.0.0.1:9/a b", "control characters"),
        ("http://127.0.0.1:port/a", "nonnumeric port: 'port'"),
        ("http://[127.0.0.1/a", "Invalid IPv6 URL"),
        ("~nobody-of-that-name/a", "home directory"),
    ],
)
def test_malformed_handle(handle, words):
    assert words in error_of(handle)


@pytest.mark.parametrize(
    "answer",
    [
        b"this is no HTTP\r\n\r\n",
        # A chunk that is shorter than it says.
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n0123",
    ],
)
def test_malformed_answer(answer):
    class Nonsense(http.server.BaseHTTPRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(answer)

    with serving(Nonsense) as url:
        error_of(f"{url}/a")


def test_file_that_is_no_archive(tmp_path):
    (tmp_path / "x").write_text("nothing")
    assert "archive" in error_of(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1000])
def test_truncated_archive_leaves_nothing(module, tmp_path, cache, server, length):
    archive = pack(module, tmp_path / "module.tar.gz")
    archive.write_bytes(archive.read_bytes()[:length])
    error_of(archive)
    assert not cache.exists() or not list(cache.iterdir())
    # The server sends the archive to tensorflow_hub.
    (tmp_path / "served.tar.gz").write_bytes(archive.read_bytes())
    error_of(f"{server[0]}/mobilenet/4")


@pytest.fixture(params=["gztar", "bztar", "xztar", "zip"])
def small(request, tmp_path):
    """An archive of few bytes, and what its graph's file holds."""
    (tmp_path / "small").mkdir()
    content = random.Random(0).randbytes(100)
    (tmp_path / "small" / "saved_model.pb").write_bytes(content)
    return shutil.make_archive(tmp_path / "archive", request.param, tmp_path / "small"), content


def test_flipped_bit_is_refused_or_changes_nothing(small, tmp_path, monkeypatch):
    # Hundreds of folders need not lie safe on the disk.
    monkeypatch.setattr("library.files.sync_tree", lambda folder: None)
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


def test_encrypted_zip(module, tmp_path):
    path = Path(shutil.make_archive(tmp_path / "encrypted", "zip", module))
    content = bytearray(path.read_bytes())
    # The lowest bit of the flags, in the files' headers and in the directory, says so.
    for mark, flags in ((rb"PK\x03\x04", 6), (rb"PK\x01\x02", 8)):
        for header in re.finditer(mark, content):
            content[header.start() + flags] |= 1
    path.write_bytes(content)
    assert "encrypted" in error_of(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), "saved_model.pb"),
        (lambda f: (f / "variables/variables.index").unlink(), "variables.index is missing"),
        (lambda f: next(f.glob("variables/*data*")).unlink(), "incomplete"),
    ],
)
def test_missing_file_is_named(module, change, words):
    assert find_missing(module) is None
    change(module)
    assert words in error_of(module)


def tar_with(path, name, kind=tarfile.REGTYPE, target="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil", tarfile.REGTYPE),
        ("/evil", tarfile.REGTYPE),
        ("a/../../evil", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("link", tarfile.LNKTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_hostile_tar_is_refused(server, tmp_path, cache, name, kind):
    error_of(tar_with(tmp_path / "hostile.tgz", name, kind, "/etc/passwd"))
    # The server sends it to tensorflow_hub.
    tar_with(tmp_path / "served.tar.gz", name, kind, "/etc/passwd")
    error_of(f"{server[0]}/mobilenet/4")
    assert not (tmp_path / "evil").exists()
    assert not Path("/evil").exists()
    assert not any(each.is_symlink() for each in tmp_path.rglob("*"))


def test_hostile_zip_stays_inside_and_has_no_links(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    for name in ("../evil", link):
        with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
            archive.writestr(name, "/etc/passwd")
        error_of(tmp_path / "hostile.zip")
    assert not list(tmp_path.rglob("evil"))
    assert not any(each.is_symlink() for each in tmp_path.rglob("*"))


def test_bomb_is_refused_before_it_is_unpacked(tmp_path):
    assert "5,000,000 bytes" in error_of(tar_with(tmp_path / "bomb.tgz", "zeros", size=5_000_000))


def test_sha256_pins_a_module_from_any_source(module, tmp_path):
    archive = pack(module, tmp_path / "module.tar.gz")
    pin = hash_module(module)
    assert resolve_module(archive, pin.upper())
    with (module / "saved_model.pb").open("ab") as file:
        file.write(b"\0")
    text = error_of(module, pin)
    assert hash_module(module) in text
    assert "hub_sha256" in text
    assert "delete" not in text


def test_deletion_hint(module, tmp_path):
    found = resolve_module(pack(module, tmp_path / "module.tar.gz"))
    assert f"delete {found}" in deletion_hint(found)
    assert deletion_hint(module) == ""
    assert f"delete {found}" in error_of(tmp_path / "module.tar.gz", "0" * 64)
