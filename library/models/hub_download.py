"""Where a pretrained module lies: a URL, a folder, an archive or gs:// becomes a local folder.

What is fetched is kept in `TFHUB_CACHE_DIR`, under the names that TensorFlow Hub gives: modules
that it fetched before are found. A module is complete there or absent; waiting for another process,
as TensorFlow Hub does for ten minutes, is never needed.
"""

import contextlib
import hashlib
import http.client
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from library.errors import UserError, printable, reason_of
from library.files import new_folder, sha256_of

GRAPH = "saved_model.pb"
# How long a server may stay silent.
TIMEOUT_SECONDS = 20
# Weights hardly compress: what grows a hundredfold is no module but an attack on the disk.
MAX_EXPANSION = 100
TAKES = "--hub_handle takes a URL, a folder, an archive or gs:// with a SavedModel"
# What servers, damaged archives and paths make Python raise. An encrypted zip, one of an unknown
# compression and the home of an unknown user are a RuntimeError.
_DAMAGE = (zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, EOFError)
_FAILURES = (*_DAMAGE, OSError, ValueError, RuntimeError, http.client.HTTPException)


def resolve_module(handle, sha256=None):
    """Return the folder that holds the module's SavedModel, after fetching it where needed.

    `sha256` is what `hash_module` must give. Raises UserError, whose one line names the handle.
    """
    handle = str(handle)
    try:
        scheme = urllib.parse.urlsplit(handle).scheme if "://" in handle else ""
        folder = _FINDERS.get(scheme, _find_locally)(handle)
        damage = find_gap(folder)
    except _FAILURES as error:
        damage = _reason(error)
    if damage:
        raise UserError(f"cannot load the module {handle}: {damage}; {TAKES}")
    if sha256 and hash_module(folder) != sha256.lower():
        raise UserError(
            f"the module {handle} is not the one expected: its hash is {hash_module(folder)}, "
            f"hub_sha256 is {sha256}{deletion_hint(folder)}"
        )
    return folder


def hash_module(folder):
    """Return the SHA-256 of a module: of its files' names and contents, wherever it came from."""
    folder = Path(folder)
    names = sorted(each.relative_to(folder).as_posix() for each in _files_of(folder))
    content = json.dumps([[name, sha256_of(folder / name)] for name in names])
    return hashlib.sha256(content.encode()).hexdigest()


def find_gap(folder):
    """Return what a SavedModel's folder lacks, in a few words, or None if it is complete."""
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such file or folder"
    if not (folder / GRAPH).is_file():
        return f"{folder} holds no {GRAPH}"
    index = folder / "variables" / "variables.index"
    shards = list(index.parent.glob("variables.data-*-of-*"))
    if shards and not index.is_file():
        return f"{index} is missing"
    if index.is_file() and len(shards) != max(
        (int(each.name[-5:]) for each in shards if each.name[-5:].isdigit()), default=1
    ):
        return f"{index.parent} is not complete"
    return None


def deletion_hint(folder):
    """Return what helps if the module in `folder` is wrong: `; delete …`, or "" if it is not ours.

    Modules are whole when they are fetched; what a disk does to them later shows on loading.
    """
    ours = cache_folder() in Path(folder).parents
    return f"; delete {folder}, and it is fetched again" if ours else ""


def cache_folder():
    """Return the folder of fetched modules: that of TensorFlow Hub."""
    return Path(
        os.environ.get("TFHUB_CACHE_DIR") or Path(tempfile.gettempdir(), "tfhub_modules")
    ).expanduser()


def _files_of(folder):
    return [each for each in folder.rglob("*") if each.is_file()]


def _find_locally(handle):
    path = Path(handle).expanduser()
    if not path.is_file():
        return path
    # By content, so that an archive that was replaced is unpacked again.
    return _cached(sha256_of(path), lambda partial: _unpack(path, partial))


def _find_on_the_web(url):
    def fetch(partial):
        archive = partial / "archive"
        opened = urllib.request.urlopen(_request(url), timeout=TIMEOUT_SECONDS)
        with opened as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
        _unpack(archive, partial)
        archive.unlink()

    # The name that TensorFlow Hub gives; SHA-1 names here, it protects nothing.
    return _cached(hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest(), fetch)


def _request(url):
    parts = urllib.parse.urlsplit(url)
    # tfhub.dev and Kaggle answer with the module itself when asked so; other servers ignore it.
    query = "&".join(filter(None, (parts.query, "tf-hub-format=compressed")))
    return urllib.request.Request(
        urllib.parse.urlunsplit(parts._replace(query=query)), headers={"User-Agent": "Wget/1.0"}
    )


def _find_in_a_bucket(url):
    def fetch(partial):
        import tensorflow as tf

        _check_reachable("https://storage.googleapis.com")
        try:
            if tf.io.gfile.isdir(url):
                _copy_tree(tf.io.gfile, url.rstrip("/"), partial)
                return
            archive = partial / "archive"
            tf.io.gfile.copy(url, str(archive))
        except tf.errors.OpError as error:
            raise OSError(error.message) from None
        _unpack(archive, partial)
        archive.unlink()

    return _cached(hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest(), fetch)


def _check_reachable(url):
    """Raise OSError now: TensorFlow would try for minutes."""
    # Any answer will do, whatever it says.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS).close()


def _copy_tree(gfile, source, target):
    for folder, _, names in gfile.walk(source):
        inside = target / folder.removeprefix(source).strip("/")
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            gfile.copy(f"{folder.rstrip('/')}/{name}", str(inside / name))


def _cached(name, fetch):
    """Return the cached folder `name`; `fetch` fills it where it is absent or incomplete."""
    folder = cache_folder() / name
    if find_gap(folder):
        with new_folder(folder) as partial:
            fetch(partial)
            _raise_inner_folder(partial)
            gap = find_gap(partial)
            if gap:
                raise OSError(gap.replace(f"{partial}", "it"))
    return folder


def _raise_inner_folder(folder):
    """Move a SavedModel up to `folder`, if the archive had it inside a folder of its own."""
    graphs = list(folder.rglob(GRAPH))
    if len(graphs) != 1 or graphs[0].parent == folder:
        return
    inner = graphs[0].parent
    for each in list(inner.iterdir()):
        target = folder / each.name
        if target == inner or target in inner.parents:
            raise OSError("its folders are named like its files")
        each.rename(target)


def _unpack(archive, folder):
    """Unpack a tar or zip that has nothing but files and folders inside. Raises OSError."""
    limit = MAX_EXPANSION * archive.stat().st_size
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for each in members:
                is_link = (each.external_attr >> 16) & 0o170000 == 0o120000
                _check_member(each.filename, each.is_dir() or not is_link)
            _check_size(sum(each.file_size for each in members), limit)
            opened.extractall(folder)
        return
    if not tarfile.is_tarfile(archive):
        raise OSError("it is neither a folder nor a tar or zip archive")
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        for each in members:
            _check_member(each.name, each.isfile() or each.isdir())
        _check_size(sum(each.size for each in members), limit)
        # A tar ends before the file does: only there gzip compares the checksum.
        while opened.fileobj.read(1 << 20):
            pass
        opened.extractall(folder, filter="data")


def _check_member(name, is_plain):
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
        raise OSError(f"refused, as {printable(name)!r} in the archive leads out of it")
    if not is_plain:
        raise OSError(f"refused, as {printable(name)!r} in the archive is a link or a device")


def _check_size(size, limit):
    if size > limit:
        raise OSError(f"refused, as the archive unpacks to {size:,} bytes")


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"the server cannot be reached ({error.reason})"
    text = reason_of(error).rstrip(".")
    if isinstance(error, http.client.InvalidURL):
        return text
    if isinstance(error, http.client.HTTPException):
        return f"the server's answer is not whole ({text})"
    if isinstance(error, _DAMAGE):
        return f"the archive is damaged ({text})"
    return f"{text}: {error.filename}" if getattr(error, "filename", None) else text


_FINDERS = {"http": _find_on_the_web, "https": _find_on_the_web, "gs": _find_in_a_bucket}
