"""Read every shard of a split, and decode every image in it."""

from collections import Counter
from dataclasses import dataclass

import simplejpeg
from tqdm import tqdm

from library.dataset.jpeg import read_jpeg_header
from library.dataset.manifest import check_hashes
from library.dataset.records import FILENAME, Fields, read_frames, read_record, to_text
from library.dataset.worker_pool import WorkerPool
from library.errors import DataError
from library.messages import counted

_BATCH = 64


@dataclass(frozen=True)
class CheckRecord:
    """The function of (where, serialized record) that gives its labels; for other processes."""

    classes: tuple[str, ...]
    is_multi_label: bool = False

    def __call__(self, located):
        """Raises DataError for a record that is not as conversion writes it."""
        where, content = located
        record = read_record(content, where, multi_label=True)
        where = f"{where}, made from {record.filename},"
        if not self.is_multi_label and len(record.label) != 1:
            raise DataError(f"{where} has {len(record.label)} labels where one belongs")
        for label in record.label:
            if not 0 <= label < len(self.classes):
                raise DataError(f"{where} has the label {label}, which no class has")
        if record.text != tuple(self.classes[label] for label in record.label):
            texts = ", ".join(map(repr, record.text)) or "none"
            raise DataError(f"{where} is of the class {texts}, but its label says another")
        header = read_jpeg_header(record.encoded)
        if header is None or (header.width, header.height) != (record.width, record.height):
            raise DataError(f"{where} is no JPEG of {record.width}x{record.height} pixels")
        try:
            simplejpeg.decode_jpeg(record.encoded, "GRAY", strict=False)
        except ValueError as error:
            raise DataError(f"{where} can't be decoded: {error}") from None
        return record.label


def verify(manifest, num_workers):
    """Check sizes, hashes, checksums, fields and images of a converted split, against its manifest.

    Raises DataError that names the first shard, record and source image with a fault.
    """
    counts = Counter()
    check = CheckRecord(manifest.classes, manifest.is_multi_label)
    with (
        WorkerPool(check, num_workers) as workers,
        tqdm(total=manifest.examples, unit=" records", desc=manifest.name) as bar,
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
            f"{manifest.name}: the shards hold {found} images of each class, not those listed"
        )


def _batches(manifest):
    batch = []
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        number = -1
        with path.open("rb") as file:
            for number, (_, content) in enumerate(read_frames(file, path)):
                batch.append((f"{path}: record {number}", content))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if number + 1 != shard.examples:
            records = counted(number + 1, "record")
            raise DataError(f"{path} holds {records}, not {shard.examples:,}")
    if batch:
        yield batch


def converted_names(manifest):
    """Return the names of the source files of all records."""
    names = set()
    for path in manifest.paths:
        with path.open("rb") as file:
            for number, (_, content) in enumerate(read_frames(file, path)):
                fields = Fields(content, f"{path}: record {number}")
                names.add(to_text(fields.get_bytes(FILENAME)))
    return names
