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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.beam.shared_folder import LocalFolder, RemoteFolder, SharedFolder
from library.dataset.storage import explain_store_errors, is_remote, open_store
from library.errors import UserError, reason_of
from library.files import PARTIAL, locked, remove_partials
from library.messages import counted

SUMMARY = "results.json"
_SHARD = re.compile(r"results-\d{5,}-of-\d{5,}\.(csv|jsonl)")
_SHARD_LIST = "shards.json"
# Unreadable files of a shard that are logged; all of them are in the results.
_MAX_LOGGED = 100

# A line, and a message if it is about an unreadable file; or a number of files that were found.
ShardItem = tuple[bytes, str | None] | int

logger = logging.getLogger(__name__)


def shard_of(name: str, shards: int) -> int:
    """Return the number of the shard with a file's line: the same each time."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % shards


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards into a staging folder, in a worker.

    Attributes:
        staging: The folder.
        shards: How many shards there are.
        format: Ending of their names.
        header: The lines with which each begins.
    """

    staging: SharedFolder
    shards: int
    format: str
    header: tuple[str, ...]

    def write(self, number: int, items: Iterable[ShardItem]) -> dict[str, Any]:
        """Write a shard, under a name that no other attempt at it has.

        Args:
            number: The number of the shard.
            items: What belongs into it.

        Returns:
            What is to know about the shard, as JSON values.
        """
        part = f"{number:05}-{secrets.token_hex(8)}"
        images = unreadable = found = 0
        messages: list[str] = []
        with self.staging.new_path(part) as path, path.open("wb") as file:
            file.writelines(f"{each}\n".encode() for each in self.header)
            for item in items:
                if isinstance(item, int):
                    found += item
                    continue
                line, message = item
                file.write(line + b"\n")
                images += 1
                if message is not None:
                    unreadable += 1
                    messages += [message][: _MAX_LOGGED - len(messages)]
        name = f"results-{number:05}-of-{self.shards:05}.{self.format}"
        counts = {"images": images, "unreadable": unreadable, "found": found}
        return {"part": part, "name": name, **counts, "messages": messages}

    def write_list(self, shards: Iterable[dict[str, Any]]) -> None:
        """Write what `write` returned for all shards."""
        self.staging.write(_SHARD_LIST, json.dumps([*shards]).encode())


@contextlib.contextmanager
def staging_folder(url: str) -> Iterator[SharedFolder]:
    """Yield a new folder in that of the results, for what is not complete; remove it at the end.

    Args:
        url: The folder of results, an absolute path or a URL.
    """
    name = f".predict-{secrets.token_hex(8)}{PARTIAL}"
    with contextlib.ExitStack() as stack:
        staging: SharedFolder
        if is_remote(url):
            staging = RemoteFolder(f"{url}/{name}")
        else:
            staging = LocalFolder(Path(url, name))
            try:
                advice = "wait for it, or choose another --predict_dir"
                stack.enter_context(locked(f"{url}/.lock", url, advice))
                remove_partials(url)
                staging.path.mkdir()
            except OSError as error:
                raise UserError(
                    f"{url} can't be written: {reason_of(error)}; choose another --predict_dir"
                ) from None
        stack.callback(_remove, staging)
        yield staging


def _remove(staging: SharedFolder) -> None:
    try:
        staging.remove()
    except UserError as error:  # Another error, or complete results, matter more.
        logger.warning(f"the staging folder could not be deleted: {error}")


def publish(staging: SharedFolder, url: str) -> tuple[int, int]:
    """Replace the results in a folder by the complete ones in its staging folder.

    Args:
        staging: The staging folder, with the list of shards.
        url: The folder of results.

    Returns:
        The number of images predicted, and of those that are unreadable, which are logged.

    Raises:
        UserError: The pipeline has lost files.
    """
    with staging.open(_SHARD_LIST) as file:
        shards = sorted(json.load(file), key=lambda each: each["name"])
    images, unreadable, found = (
        sum(each[key] for each in shards) for key in ("images", "unreadable", "found")
    )
    if images != found:
        raise UserError(
            f"the pipeline's runner has lost results: {images:,} of {found:,} are there"
        )
    folder: SharedFolder = RemoteFolder(url) if is_remote(url) else LocalFolder(Path(url))
    names = [name for name in folder.names() if name == SUMMARY or _SHARD.fullmatch(name)]
    for name in sorted(names, key=lambda each: each != SUMMARY):
        _delete(f"{url}/{name}")
    for each in shards:
        staging.move(each["part"], f"{url}/{each['name']}")
    listed = [{key: each[key] for key in ("name", "images", "unreadable")} for each in shards]
    summary = {"images": images, "unreadable": unreadable, "shards": listed}
    folder.write(SUMMARY, f"{json.dumps(summary, indent=2)}\n".encode())
    messages = [each for shard in shards for each in shard["messages"]]
    for message in messages:
        logger.info(message)
    if len(messages) < unreadable:
        logger.info(f"and {counted(unreadable - len(messages), 'more file')}: see {url}")
    return images - unreadable, unreadable


def _delete(url: str) -> None:
    if not is_remote(url):
        Path(url).unlink()
        return
    with explain_store_errors(url, "written"):
        store, path = open_store(url)
        store.rm_file(path)
