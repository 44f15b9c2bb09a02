"""The splits of a command that are streamed, and where their shards are: at a URL, and cached."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from library.dataset.manifest import Manifest, Shard, find_manifest, manifest_path
from library.dataset.sources.base import TRAINING
from library.errors import UserError
from library.messages import counted
from library.streaming.cache import RemoteShard, ShardCache, StreamedShards, open_cache

logger = logging.getLogger(__name__)


def register_splits(splits: Iterable[Manifest], gigabytes: float, interleaved: int) -> None:
    """Stream the splits from now on, those that are not on this machine already.

    Args:
        splits: Manifests, whose shards need not be downloaded.
        gigabytes: Most gigabytes of the cache.
        interleaved: Number of shards that are read in turn.

    Raises:
        SettingsError: The cache is too small for what is read at the same time.
        UserError: The disk is smaller than the cache.
    """
    streamed = [each for each in splits if each.origin and not _is_downloaded(each)]
    if not streamed:
        return
    cache = open_cache(round(gigabytes * 1e9))
    _check_disk(cache, sum(shard.bytes for each in streamed for shard in each.shards))
    added = []
    for split in streamed:
        shards = _find_shards(split, cache.folder)
        logger.info(
            f"streaming {split.origin}: {counted(len(shards), 'shard')}, "
            f"{sum(each.shard.bytes for each in shards) / 1e9:.3g} GB, through at most "
            f"{gigabytes:g} GB in {cache.folder}"
        )
        each = StreamedShards(split.name, shards, interleaved)
        if split.name != TRAINING:
            # Not shuffled: known before it is read.
            each.next_order = tuple(each.shards)
        added.append(((split.name, split.fingerprint), each))
    cache.register(dict(added))


def _is_downloaded(split: Manifest) -> bool:
    return all(find_manifest(each.folder, each.name) for each in _parts(split))


def _parts(split: Manifest) -> tuple[Manifest, ...]:
    """Return the splits, each in a folder of its own, that a split is made of."""
    return getattr(split, "parts", ()) or (split,)


def _find_shards(split: Manifest, folder: Path) -> list[RemoteShard]:
    return [
        RemoteShard(
            url=f"{part.origin}/{shard.file}",
            path=folder / _cached_name(shard),
            shard=shard,
            listed_in=manifest_path("", part.name).name,
        )
        for part in _parts(split)
        for shard in part.shards
    ]


def _cached_name(shard: Shard) -> str:
    """Return a file name by content: all data is in one folder, and shards may be replaced."""
    path = Path(shard.file)
    return f"{path.stem}-{shard.sha256[:16]}{path.suffix}"


def _check_disk(cache: ShardCache, size: int) -> None:
    used = sum(each.stat().st_size for each in cache.folder.glob("*.tfrecord"))
    needed = min(cache.limit, size) - used
    free = shutil.disk_usage(cache.folder).free
    if free < needed:
        raise UserError(
            f"{cache.folder} has {free / 1e9:.3g} GB free, and the cache may take "
            f"{needed / 1e9:.3g} GB more: use a smaller --stream_gigabytes, or set XDG_CACHE_HOME "
            "to a folder on a larger disk"
        )
