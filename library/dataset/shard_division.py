"""Which files of an index go into which shard, and which of them into one batch for a worker."""

from collections.abc import Callable, Iterator

from library.dataset.encode_record import Task
from library.dataset.file_index import FileIndex
from library.dataset.shards import FinishedShard
from library.dataset.sources.base import label_id

# Without --num_shards: shards of about this size, but at least _MIN_SHARDS where there are enough
# images, because several shards are read at the same time.
SHARD_BYTES = 128 << 20
_MIN_SHARDS = 8
_MIN_FILES_PER_SHARD = 32
# A worker gets a batch at a time: large enough to hide the overhead, small enough for all batches
# under way to fit in memory.
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20


def make_limit(total: int, num_shards: int) -> Callable[[FinishedShard], bool]:
    """Return the function that tells whether a shard is full."""
    if num_shards:
        ends = set(shard_ends(total, num_shards))
        return lambda shard: shard.end in ends
    files = max_shard_files(total)
    return lambda shard: shard.end - shard.first >= files or shard.bytes >= SHARD_BYTES


def shard_ends(total: int, num_shards: int) -> list[int]:
    """Return where each shard ends in an index of `total` files, with --num_shards."""
    count = min(num_shards, total)
    return [number * total // count for number in range(1, count + 1)]


def max_shard_files(total: int) -> int:
    """Return after how many files a shard ends at the latest, without --num_shards."""
    return max(_MIN_FILES_PER_SHARD, -(-total // _MIN_SHARDS))


def batches(
    index: FileIndex, first: int, end: int, classes: tuple[str, ...]
) -> Iterator[list[Task]]:
    """Yield files of an index in batches for a worker process.

    Args:
        index: The files.
        first: Position of the first one.
        end: Position after the last one.
        classes: In the order of their ids.
    """
    ids = {text: number for number, text in enumerate(classes)}
    batch, size = [], 0
    for number in range(first, end):
        file = index[number]
        batch.append(Task(file.location, label_id(file.label, ids), file.label, file.name))
        size += file.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
