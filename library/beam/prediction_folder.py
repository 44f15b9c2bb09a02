"""The folder of results, on a disk that all workers share or at a URL: shards, whole or not at all.

`results-00000-of-00008.jsonl` and so on, and `results.json`, which lists them: it is written last
and deleted first. Until then everything is in a staging folder within.
"""

import contextlib
import hashlib
import json
import logging
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from library.dataset.storage import (
    NotFoundError,
    explain_store_errors,
    is_remote,
    list_folder,
    open_store,
    read_url,
)
from library.errors import UserError
from library.files import PARTIAL, explain_write_errors, locked, new_file, remove_partials
from library.messages import counted

SUMMARY = "results.json"
_SHARD = re.compile(r"results-\d{5,}-of-\d{5,}\.(csv|jsonl)")
_SHARD_LIST = "shards.json"
# Unreadable files of a shard that are logged; all of them are in the results.
_MAX_LOGGED = 100

logger = logging.getLogger(__name__)


def shard_of(name: str, shards: int) -> int:
    """Return the number of the shard with a file's line: the same each time."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % shards


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards into a staging folder, in a worker.

    Attributes:
        staging: The folder or URL.
        shards: How many shards there are.
        format: Ending of their names.
        header: The lines with which each begins.
    """

    staging: str
    shards: int
    format: str
    header: tuple[str, ...]

    def write(self, number: int, lines: Iterable[tuple[bytes, str | None]]) -> dict[str, Any]:
        """Write a shard, under a name that no other attempt at it has.

        Args:
            number: The number of the shard.
            lines: Each with a message if it is about an unreadable file, else None.

        Returns:
            What is to know about the shard, as JSON values.
        """
        part = f"{number:05}-{secrets.token_hex(8)}"
        images = unreadable = 0
        messages: list[str] = []
        with _new_file(f"{self.staging}/{part}") as file:
            file.writelines(f"{each}\n".encode() for each in self.header)
            for line, message in lines:
                file.write(line + b"\n")
                images += 1
                if message is not None:
                    unreadable += 1
                    messages += [message][: _MAX_LOGGED - len(messages)]
        name = f"results-{number:05}-of-{self.shards:05}.{self.format}"
        counts = {"images": images, "unreadable": unreadable}
        return {"part": part, "name": name, **counts, "messages": messages}

    def write_list(self, shards: Iterable[dict[str, Any]]) -> None:
        """Write what `write` returned for all shards."""
        _write(f"{self.staging}/{_SHARD_LIST}", [*shards])


@contextlib.contextmanager
def staging_folder(folder: str) -> Iterator[str]:
    """Yield a path within a folder of results for what is not complete; remove it at the end."""
    staging = f"{folder}/.predict-{secrets.token_hex(8)}{PARTIAL}"
    if is_remote(folder):
        try:
            yield staging
        finally:
            _remove_staging(staging)
        return
    advice = "wait for it, or choose another --predict_dir"
    with explain_write_errors(folder), locked(f"{folder}/.lock", folder, advice):
        remove_partials(folder)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish(staging: str) -> tuple[int, int]:
    """Replace the results in a folder by the complete ones in its staging folder.

    Returns:
        The number of images predicted, and of those that are unreadable, which are logged.

    Raises:
        UserError: The shards are not there.
    """
    folder = staging.rpartition("/")[0]
    shards = sorted(_read_list(staging), key=lambda each: each["name"])
    names = [name for name in _list_names(folder) if name == SUMMARY or _SHARD.fullmatch(name)]
    for name in sorted(names, key=lambda each: each != SUMMARY):
        _remove(f"{folder}/{name}")
    for each in shards:
        _move(f"{staging}/{each['part']}", f"{folder}/{each['name']}")
    images, unreadable = (sum(each[key] for each in shards) for key in ("images", "unreadable"))
    listed = [{key: each[key] for key in ("name", "images", "unreadable")} for each in shards]
    _write(f"{folder}/{SUMMARY}", {"images": images, "unreadable": unreadable, "shards": listed})
    messages = [each for shard in shards for each in shard["messages"]]
    for message in messages:
        logger.info(message)
    if len(messages) < unreadable:
        logger.info(f"and {counted(unreadable - len(messages), 'more file')}: see {folder}")
    return images - unreadable, unreadable


@contextlib.contextmanager
def written_folder(url: str) -> Iterator[Path]:
    """Yield a local folder whose files are at a path or URL after the block."""
    if not is_remote(url):
        Path(url).mkdir(parents=True)
        yield Path(url)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        with explain_store_errors(url, "written"):
            store, path = open_store(url)
            for each in Path(folder).rglob("*"):
                if each.is_file():
                    store.put_file(str(each), f"{path}/{each.relative_to(folder).as_posix()}")


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Yield a local folder with the files at a path or URL."""
    if not is_remote(url):
        if not Path(url).is_dir():
            raise UserError(
                f"a worker can't read {url}: give --predict_dir a URL, or a folder on a disk that "
                "all workers share"
            )
        yield Path(url)
        return
    with tempfile.TemporaryDirectory() as folder:
        with explain_store_errors(url):
            store, path = open_store(url)
            for each in store.find(path):
                local = Path(folder, each.removeprefix(path).lstrip("/"))
                local.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(each, str(local))
        yield Path(folder)


def _read_list(staging: str) -> list[dict[str, Any]]:
    path = f"{staging}/{_SHARD_LIST}"
    try:
        return json.loads(read_url(path) if is_remote(path) else Path(path).read_bytes())
    except (FileNotFoundError, NotFoundError):
        raise UserError(
            f"the workers have not written {path}: give --predict_dir a URL, or a folder on a disk "
            "that all workers share"
        ) from None


@contextlib.contextmanager
def _new_file(url: str) -> Iterator[BinaryIO]:
    if not is_remote(url):
        with new_file(url) as local:
            yield local
        return
    with explain_store_errors(url, "written"):
        store, path = open_store(url)
        with store.open(path, "wb") as file:
            yield file


def _write(url: str, content: Any) -> None:
    with _new_file(url) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _list_names(folder: str) -> list[str]:
    if not is_remote(folder):
        return [each.name for each in Path(folder).iterdir()]
    return [name for name, _ in list_folder(folder)]


def _remove_staging(url: str) -> None:
    try:
        with explain_store_errors(url, "written"):
            store, path = open_store(url)
            # Workers have written there since the store was listed.
            store.invalidate_cache()
            store.rm(path, recursive=True)
    except NotFoundError:
        pass
    except UserError as error:  # Another error, or complete results, matter more.
        logger.warning(f"{url} could not be deleted: {error}")


def _remove(url: str) -> None:
    if not is_remote(url):
        Path(url).unlink()
        return
    with explain_store_errors(url, "written"):
        store, path = open_store(url)
        store.rm_file(path)


def _move(source: str, target: str) -> None:
    """Give a file its final name; at a URL, the original goes with its folder."""
    if not is_remote(source):
        Path(source).replace(target)
        return
    with explain_store_errors(target, "written"):
        store, path = open_store(source)
        store.cp_file(path, store._strip_protocol(target))
