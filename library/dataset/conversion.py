"""Convert labeled files to a split of shards: in parallel, resumable, all or nothing.

The steps of `convert`: index the files, encode each as a record in a worker process, write the
records into shards, publish these with a manifest.
"""

import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from library.dataset.class_checks import check_labels, check_several_classes
from library.dataset.corrections import Corrections
from library.dataset.encode_record import EncodeRecord
from library.dataset.file_index import FileIndex
from library.dataset.label_conflicts import check_label_conflicts
from library.dataset.manifest import (
    Manifest,
    check_hashes,
    find_manifest,
    read_manifest,
)
from library.dataset.options import ConversionOptions
from library.dataset.shard_division import batches, make_limit
from library.dataset.shards import (
    FinishedShard,
    RejectedFile,
    ShardWriter,
    WorkFolder,
    check_unused,
    publish,
    remove_work_folder,
    work_folder_path,
)
from library.dataset.sources.base import (
    NO_CLASS,
    SPLITS,
    TRAINING,
    LabeledFile,
    labels_of,
)
from library.dataset.sources.find import SourceOptions, find_files
from library.dataset.split_assignment import Splitter
from library.dataset.splits import (
    CODE_POINT,
    find_training_manifest,
    order_classes,
    read_classes,
)
from library.dataset.worker_pool import WorkerPool, available_cores
from library.errors import DataError, SettingsError, printable
from library.files import locked, resumable
from library.logging import progress_bar
from library.messages import counted, counted_classes, listed, shown

logger = logging.getLogger(__name__)

# To be increased when a file is stored otherwise than before, or rejected: converting again then
# replaces what an earlier version made.
_ENCODER_VERSION = 2
# Less work than this is done before another worker has started.
_FILES_PER_WORKER = 1000
_BYTES_PER_WORKER = 8 << 20


@dataclass(frozen=True)
class Source:
    """The files of one split.

    Attributes:
        path: What `find_files` takes, or the name of a dataset that Keras downloads (`is_keras`).
        split: The split's name.
        options: How to look for files.
        splitter: Selects the split's files, by name and uncorrected label; None: all files.
        corrections: Corrects labels; None: they stay.
    """

    path: str
    split: str
    options: SourceOptions = field(default_factory=SourceOptions)
    is_keras: bool = False
    splitter: Splitter | None = None
    corrections: Corrections | None = None

    def __str__(self) -> str:
        return self.path

    def find(self) -> Iterator[LabeledFile]:
        """Yield the files, in no certain order."""

        def find_all() -> Iterator[LabeledFile]:
            if self.is_keras:
                from library.dataset.sources.keras_datasets import find_in_keras

                return find_in_keras(self.path, self.split)
            return find_files(self.path, self.options)

        files = self.splitter.divide(find_all, self.split) if self.splitter else find_all()
        return self.corrections.apply(files, find_all) if self.corrections else files


class Engine(Protocol):
    """What encodes the files of an index and writes them into shards: a cluster, for one."""

    def write_shards(
        self,
        index: FileIndex,
        work: WorkFolder,
        classes: tuple[str, ...],
        options: ConversionOptions,
    ) -> None:
        """Write all files of the index: `work.finished` is complete then, or an error is raised."""


def convert(
    source: Source,
    folder: Path | str,
    name: str,
    options: ConversionOptions,
    engine: Engine | None = None,
) -> Manifest:
    """Convert files into the split `name` in `folder`.

    Args:
        source: The files.
        folder: Where shards and manifest go.
        name: The split's name.
        options: How to convert.
        engine: What writes the shards; None: worker processes of this machine, resumable.

    Returns:
        The split's new manifest.

    Raises:
        DataError: The files are unusable, or too many of them. The old split stays as it was.
        SettingsError: The old split was made with other settings, and `overwrite` is off.
        UserError: The disk is full, or another process is converting this split.
    """
    with (
        contextlib.nullcontext() if engine else make_pool(options, available_cores()) as workers,
        contextlib.closing(FileIndex(source.find(), options.random_seed)) as index,
    ):
        classes = _find_classes(index, source, folder, name, options)
        if workers:
            workers.grow(1 + max(len(index) // _FILES_PER_WORKER, index.bytes // _BYTES_PER_WORKER))
        plan = _make_plan(index, classes, options, source.corrections)
        lock = Path(folder) / f".{name}.lock"
        # A finished split may be on a read-only disk, where no lock can be had.
        is_tidy = not (lock.exists() or work_folder_path(folder, name).exists())
        if is_tidy and (done := _find_finished(folder, name, plan)):
            return done
        with (
            resumable(folder, None if engine else "finished shards"),
            locked(lock, f"the split {name} in {folder}", "wait for it, or end it"),
        ):
            if done := _find_finished(folder, name, plan):
                remove_work_folder(folder, name)
                return done
            if previous := find_manifest(folder, name):
                check_unused(Path(folder), name)
                check_replacement(previous, source, options)
            work = WorkFolder(folder, name, plan)
            try:
                if workers:
                    _write_shards(index, work, workers, classes, options)
                elif engine:
                    engine.write_shards(index, work, classes, options)
                _log_oddities(work.finished)
                counts = _count_classes(work, index)
            except DataError:
                work.remove()
                raise
            settings = {"source": str(source), "plan": plan, **_settings_of(options, source)}
            class_counts = tuple(counts[each] for each in classes)
            manifest = Manifest(
                *(Path(folder), name, classes, class_counts, (), settings),
                is_multi_label=index.is_multi_label,
            )
            keys = work.keys
            manifest = publish(work, manifest, keys)
            check_label_conflicts(manifest, keys, _splits_before(source))
            return manifest


def make_pool(options: ConversionOptions, max_workers: int) -> WorkerPool:
    """Return worker processes, at most `num_workers` or else `max_workers`, that encode Tasks."""
    return WorkerPool(
        EncodeRecord(options.images),
        options.num_workers or max_workers,
        options.images.memory_bytes,
        options.seconds_per_image,
    )


def _find_classes(
    index: FileIndex, source: Source, folder: Path | str, name: str, options: ConversionOptions
) -> tuple[str, ...]:
    """Return the classes in the order of their ids. Raise DataError unless they make sense."""
    if source.splitter and not len(index):
        source.splitter.check(empty=source.split)
    check_labels(index, source)
    splitter, labels = source.splitter, set(index.counts) - {NO_CLASS}
    first = splitter.first if splitter else None
    fixed_by = options.classes_from or find_training_manifest(folder, name, first)
    if source.corrections:
        source.corrections.check_classes(read_classes(fixed_by) if fixed_by else ())
        _check_training_classes(index, source)
    if splitter and name in splitter.folds:
        # A class may be absent from a fold; the first one is converted first.
        corrected = source.corrections and set(+source.corrections.class_counts) - {NO_CLASS}
        labels = corrected or splitter.labels
    if not fixed_by and len(labels) < 2:
        check_several_classes(index, source, name)
    if splitter:
        splitter.check()
    return order_classes(labels, fixed_by, options.class_order)


def _check_training_classes(index: FileIndex, source: Source) -> None:
    """Raise DataError if corrections took a class from the training split, but not from others."""
    if source.splitter and source.split == TRAINING and source.corrections:
        left = set(+source.corrections.class_counts) - set(index.counts) - {NO_CLASS}
        if left:
            raise DataError(
                f"{source.corrections.path}: {source.split} is left without images of "
                f"{listed(sorted(left))}, which other splits have: correct those, too"
            )


def check_replacement(previous: Manifest, source: Source, options: ConversionOptions) -> None:
    """Log that a split is about to be replaced.

    Raises SettingsError if it was made with other settings, and these were not meant to change.
    """
    where = f"{previous.origin or previous.folder}: {previous.name}"
    what = f"{counted(previous.examples, 'image')} of {counted_classes(len(previous.classes))}"
    settings = _settings_of(options, source)
    # Other corrections are other data; only without any, mended labels would be wrong again.
    ignored = ("source", "plan", *(["corrections"] if source.corrections else []))
    changes = [
        f"{key} was {shown(before.get('file') if isinstance(before, dict) else before)}, now "
        f"{shown(settings.get(key))}"
        for key, before in previous.settings.items()
        if key not in ignored and before != settings.get(key)
    ]
    if changes and not options.overwrite:
        raise SettingsError(
            f"{where} has {what}, made with other settings ({'; '.join(changes)}): use those, or "
            "add --overwrite"
        )
    logger.info(f"{where}: replacing {what}, converted from {previous.settings.get('source')}")
    if source.corrections and (lost := source.corrections.find_lost(previous.settings)):
        images = counted(len(lost), "image")
        logger.warning(
            f"{where}: {source.corrections.path} lacks earlier corrections of {images}, such as "
            f"{printable(lost[0])}, whose labels are uncorrected again"
        )


def _settings_of(options: ConversionOptions, source: Source) -> dict[str, Any]:
    """Return what the manifest records of the options, --split and corrections, as JSON values."""
    settings: dict[str, Any] = _encoding_of(options)
    if source.splitter:
        settings["split"] = str(source.splitter)
        settings["group_by"] = source.splitter.group_by
    if source.corrections:
        settings["corrections"] = source.corrections.to_json()
    return settings


def _encoding_of(options: ConversionOptions) -> dict[str, Any]:
    own: dict[str, Any] = {"num_shards": options.num_shards, "random_seed": options.random_seed}
    if options.class_order != CODE_POINT:
        own["class_order"] = options.class_order
    return options.images.to_json() | own


def _splits_before(source: Source) -> Iterable[str]:
    """Return the splits that are as they will be: of a division, later ones are yet to be made."""
    if not source.splitter:
        return SPLITS
    return takewhile(lambda each: each != source.split, source.splitter.fractions)


def _make_plan(
    index: FileIndex,
    classes: tuple[str, ...],
    options: ConversionOptions,
    corrections: Corrections | None,
) -> str:
    """Return a hash of everything that the shards and the manifest depend on."""
    libraries = {each: version(each) for each in ("pillow", "simplejpeg", "opencv-python-headless")}
    files = (len(index), str(index.fingerprint), "")
    facts = [_ENCODER_VERSION, files, classes, _encoding_of(options), libraries]
    if corrections:
        # Their reasons are in the manifest, too.
        facts.append(corrections.sha256)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _find_finished(folder: Path | str, name: str, plan: str) -> Manifest | None:
    """Return the manifest of a conversion by the same plan, if all its shards are intact."""
    try:
        manifest = read_manifest(folder, name)
        if manifest.settings.get("plan") != plan:
            return None
        check_hashes(manifest)
    except DataError:
        return None
    return manifest


def _write_shards(
    index: FileIndex,
    work: WorkFolder,
    workers: WorkerPool,
    classes: tuple[str, ...],
    options: ConversionOptions,
) -> None:
    """Write all files of the index that are not yet in a finished shard.

    Args:
        index: The files.
        work: Where the shards go.
        workers: Encode the files.
        classes: In the order of their ids.
        options: When a shard ends, and how many files may be unusable.

    Raises:
        DataError: Too many files are unusable.
    """
    total, rejected = len(index), work.rejected
    with (
        ShardWriter(work, make_limit(total, options.num_shards)) as writer,
        progress_bar(total, work.name, initial=work.position, unit=" images") as bar,
    ):
        for tasks, results in workers.map(batches(index, work.position, total, classes)):
            for task, result in zip(tasks, results, strict=True):
                if unusable := writer.add(task.name, task.text, result):
                    rejected.append(unusable)
                    check_rejected(rejected, total, options.max_bad_fraction)
            bar.update(len(tasks))


def _log_oddities(shards: Iterable[FinishedShard]) -> None:
    found: dict[str, tuple[int, str]] = {}
    for shard in shards:
        for oddity, (count, name) in shard.oddities.items():
            before, first = found.get(oddity, (0, name))
            found[oddity] = (before + count, first)
    for oddity, (count, name) in found.items():
        images = f"{counted(count, 'image')} with {oddity}, such as {printable(name)}"
        logger.warning(f"{images}: stored dark or black; scale the values to 16 bits first")


def most_rejected(total: int, max_fraction: float) -> int:
    """Return how many of `total` files may be unusable."""
    return int(max_fraction * total)


def check_rejected(rejected: list[RejectedFile], total: int, max_fraction: float) -> None:
    """Raise DataError if more files are unusable than `max_fraction` (max_bad_fraction) allows."""
    if len(rejected) > most_rejected(total, max_fraction):
        examples = "; ".join(f"{each.file} {each.reason}" for each in rejected[:3])
        more = "; …" if len(rejected) > 3 else ""
        raise DataError(
            f"at least {len(rejected)} of {counted(total, 'file')} can't be used, more than "
            f"max_bad_fraction ({max_fraction:g}) allows: {examples}{more}"
        )


def _count_classes(work: WorkFolder, index: FileIndex) -> Counter[str]:
    """Return the records of each class. Raises DataError for a class without any."""
    counts: Counter[str] = Counter()
    for shard in work.finished:
        counts.update(shard.counts)
    empty = sorted(set(index.counts) - set(counts) - {NO_CLASS})
    if empty:
        first = next(each for each in work.rejected if empty[0] in labels_of(each.label))
        raise DataError(f"all images of {empty[0]!r} are unusable: {first.file} {first.reason}")
    return counts
