"""Read every shard of a split, and decode every image in it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from library.dataset.images import UnusableImageError, check_decodable
from library.dataset.manifest import Manifest, check_hashes
from library.dataset.records import read_frames, read_record
from library.dataset.worker_pool import WorkerPool
from library.errors import DataError
from library.logging import progress_bar
from library.messages import counted

_BATCH = 64


@dataclass(frozen=True)
class CheckRecord:
    """Check one record and return its labels; picklable, for worker processes."""

    classes: tuple[str, ...]
    is_multi_label: bool = False

    def __call__(self, located: tuple[str, bytes]) -> tuple[int, ...]:
        """Check (where, serialized record). Raises DataError unless conversion wrote it so."""
        where, content = located
        record = read_record(content, where, multi_label=True)
        labels, texts = record.labels, record.texts
        where = f"{where}, made from {record.filename},"
        if fault := record.find_fault(len(self.classes), self.is_multi_label):
            raise DataError(f"{where} {fault}")
        if texts != tuple(self.classes[label] for label in labels):
            names = ", ".join(map(repr, texts)) or "none"
            raise DataError(f"{where} has the class {names}, which its label contradicts")
        try:
            check_decodable(record.encoded, record.height, record.width)
        except UnusableImageError as error:
            raise DataError(f"{where} {error}") from None
        return labels


def verify(manifest: Manifest, num_workers: int) -> None:
    """Check sizes, hashes, checksums, fields and images of a split against its manifest.

    Raises DataError, naming the first faulty shard, record and source image.
    """
    counts: Counter[int] = Counter()
    check = CheckRecord(manifest.classes, manifest.is_multi_label)
    with (
        WorkerPool(check, num_workers) as workers,
        progress_bar(manifest.examples, manifest.name, unit=" records") as bar,
    ):
        workers.grow(num_workers)
        for batch, results in workers.map(_batches(manifest)):
            for passed, result in results:
                if not passed:
                    raise DataError(result)
                counts.update(result)
            bar.update(len(batch))
    check_hashes(manifest)
    found = tuple(counts[label] for label in range(len(manifest.classes)))
    if found != manifest.class_counts:
        raise DataError(
            f"{manifest.name}: the shards have {found} images per class, "
            f"the manifest {manifest.class_counts}"
        )


def _batches(manifest: Manifest) -> Iterator[list[tuple[str, bytes]]]:
    batch = []
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        count = 0
        for located in _locate_records(path):
            count += 1
            batch.append(located)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if count != shard.examples:
            raise DataError(f"{path} has {counted(count, 'record')}, not {shard.examples:,}")
    if batch:
        yield batch


def _locate_records(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name for messages, serialized record) for each record of a shard."""
    with path.open("rb") as file:
        for number, (_, content) in enumerate(read_frames(file, path)):
            yield f"{path}: record {number}", content
