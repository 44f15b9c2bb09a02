"""Labeled files → images → records → shards and a manifest: parallel, resumable, whole or not."""

import hashlib
import json
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from library.dataset.encode_record import EncodeRecord, Task
from library.dataset.file_index import FileIndex
from library.dataset.images import ImageOptions
from library.dataset.manifest import check_hashes, read_manifest
from library.dataset.shards import ShardWriter, Stage, WorkFolder, drop_work, publish, work_folder
from library.dataset.sources.base import NO_CLASS, SPLITS, labels_of
from library.dataset.worker_pool import WorkerPool, available_cores
from library.errors import DataError, StoppedError, UnreachableError, UserError, reason_of
from library.files import locked
from library.messages import counted

# Without --num_shards: shards of this size, but at least so many where there are enough images,
# because several are read at the same time.
SHARD_BYTES = 128 << 20
_LEAST_SHARDS = 8
_LEAST_IN_A_SHARD = 32
# A batch goes to a worker as a whole: large enough for its overhead to vanish, small enough for
# all batches under way to fit in memory.
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
# Less work than this would be done before another worker has started.
_FILES_PER_WORKER = 1000
_BYTES_PER_WORKER = 8 << 20
_GOES_ON = "finished shards are kept, and the same command goes on from there"


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert. `num_shards` and `num_workers` of 0 are chosen to fit."""

    images: ImageOptions = field(default_factory=ImageOptions)
    num_shards: int = 0
    num_workers: int = 0
    random_seed: int = 0
    max_bad_fraction: float = 0.01
    seconds_per_image: float = 60


def convert(find, folder, name, options, find_classes=sorted, source="", base=None):
    """Convert files into the split `name` in `folder`; give its Manifest.

    `find(with_content)` yields them: see `find_files`.
    `find_classes` gives the classes in the order of their ids, from the labels found. `base` is the
    Manifest of the same split as it is, if the files are to be added to it. Raises DataError, and
    leaves whatever was there before as it was, where too many files are unusable.
    """
    most = options.num_workers or available_cores()
    function = EncodeRecord(options.images)
    with (
        WorkerPool(
            function, most, options.images.memory_bytes, options.seconds_per_image
        ) as workers,
        closing(FileIndex(find(), options.random_seed)) as listing,
    ):
        if base and not len(listing):
            drop_work(folder, name)
            return base
        _check_labels(listing, source, base)
        classes = tuple(find_classes(set(listing.counts) - {NO_CLASS}))
        plan = _plan(listing, classes, options, base)
        # With nothing to tidy up no lock is needed: a finished split may be on a read-only disk.
        leftovers = (_lock_path(folder, name), work_folder(folder, name))
        if not base and not any(each.exists() for each in leftovers):
            done = _already_done(folder, name, plan)
            if done:
                return done
        with _locked(folder, name, base):
            done = None if base else _already_done(folder, name, plan)
            if done:
                drop_work(folder, name)
                return done
            work = WorkFolder(folder, name, plan, len(base.shards) if base else 0)
            try:
                _convert_all(find, listing, classes, work, workers, options)
                counts = _count_classes(work, listing)
            except DataError:
                work.remove()
                raise
            settings = {"source": str(source), "plan": plan, **_choices(options)}
            return publish(work, classes, counts, settings, base, listing.is_multi_label)


@contextmanager
def _locked(folder, name, base):
    """Let nobody else convert the split within the block; errors in it tell that it can go on."""
    lock = _lock_path(folder, name)
    try:
        with locked(lock, f"the split {name} in {folder}", "wait for it, or end it"):
            if base and read_manifest(folder, name) != base:
                raise UserError(f"{folder}: {name} has just been changed: give the command again")
            yield
    except OSError as error:
        raise UserError(f"{folder} can't be written: {reason_of(error)}; {_GOES_ON}") from error
    except UnreachableError as error:
        raise UnreachableError(f"{error}; {_GOES_ON}") from error
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; {_GOES_ON}", 130) from None


def _lock_path(folder, name):
    return Path(folder) / f".{name}.lock"


def _check_labels(listing, source, base):
    labels = set(listing.counts)
    if base and base.is_multi_label != listing.is_multi_label:
        raise DataError(
            f"append: only one of {base.name} and {source} has several classes per image: give the "
            "same --label_separator as before"
        )
    if not labels and len(listing):
        raise DataError(f"no image of {source} has any class: all labels are empty")
    if not labels:
        raise DataError(f"{source} holds no images: put them at {source}/<class>/<image>")
    if labels == {NO_CLASS}:
        raise DataError(
            f"the images in {source} have no class: put them at {source}/<class>/<image>"
        )
    if len(labels) > 1 and labels <= {*SPLITS, NO_CLASS}:
        raise DataError(
            f"{source} holds splits, not classes ({', '.join(sorted(labels - {NO_CLASS}))}): "
            f"convert one at a time, such as {source}/{max(labels & set(SPLITS))}"
        )


def _choices(options):
    choices = asdict(options.images)
    choices["background"] = list(options.images.background)  # as JSON gives it back
    return {**choices, "num_shards": options.num_shards, "random_seed": options.random_seed}


def _plan(listing, classes, options, base):
    """Return a hash of all that the shards' bytes depend on."""
    libraries = {each: version(each) for each in ("pillow", "simplejpeg", "opencv-python-headless")}
    files = (len(listing), str(listing.fingerprint), base.fingerprint if base else "")
    facts = [files, classes, _choices(options), libraries]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _already_done(folder, name, plan):
    """Return the Manifest of a conversion by the same plan whose shards are all as they were."""
    try:
        manifest = read_manifest(folder, name)
        if manifest.settings.get("plan") != plan:
            return None
        check_hashes(manifest)
    except DataError:
        return None
    return manifest


def _convert_all(find, listing, classes, work, workers, options):
    """Bring all files of the listing that are not yet in a finished shard into one."""
    total = len(listing)
    labels = {text: label for label, text in enumerate(classes)}
    workers.grow(1 + max(total // _FILES_PER_WORKER, listing.bytes // _BYTES_PER_WORKER))
    ends = _shard_end(total, options.num_shards)
    if not listing.is_streamed:
        files = (listing[number] for number in range(work.position, total))
        _convert_files(files, total, labels, work, ends, workers, options)
        return
    stage = Stage(work)
    files = islice(find(with_content=True), stage.work.position, None)
    _convert_files(files, total, labels, stage.work, stage.ends_after, workers, options)
    with ShardWriter(work, ends) as writer:
        stage.move(listing, writer)


def _convert_files(files, total, labels, work, ends, workers, options):
    """Write the next files of `total` into shards. Raises DataError where too many are unusable."""
    allowed = int(options.max_bad_fraction * total)
    left_out = work.left_out
    with (
        ShardWriter(work, ends) as writer,
        tqdm(total=total, initial=work.position, unit=" images", desc=work.name) as bar,
    ):
        for tasks, results in workers.map(_batches(files, labels)):
            for task, (is_record, result) in zip(tasks, results, strict=True):
                if is_record:
                    writer.write(result, task.text)
                    continue
                writer.leave_out(task, result)
                left_out.append({"file": task.name, "reason": result})
                if len(left_out) > allowed:
                    raise DataError(_too_many(left_out, total, options.max_bad_fraction))
            bar.update(len(tasks))


def _batches(files, labels):
    """Yield lists of Tasks."""
    batch, size = [], 0
    for file in files:
        batch.append(Task(file.location, _id_of(file.label, labels), file.label, file.name))
        size += file.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _id_of(label, ids):
    if isinstance(label, tuple):
        return tuple(ids[each] for each in label)
    # A file without a class has no id either; it is left out.
    return ids.get(label, -1)


def _shard_end(total, num_shards):
    """Return the function that says when a shard ends."""
    if num_shards:
        count = min(num_shards, total)
        ends = {number * total // count for number in range(1, count + 1)}
        return lambda files, size, position: position in ends
    most = max(_LEAST_IN_A_SHARD, -(-total // _LEAST_SHARDS))
    return lambda files, size, position: files >= most or size >= SHARD_BYTES


def _too_many(left_out, total, fraction):
    examples = "; ".join(f"{each['file']} {each['reason']}" for each in left_out[:3])
    more = "; …" if len(left_out) > 3 else ""
    return (
        f"at least {len(left_out)} of {counted(total, 'file')} can't be used, more than "
        f"max_bad_fraction ({fraction:g}) allows: {examples}{more}"
    )


def _count_classes(work, listing):
    counts = Counter()
    for shard in work.finished:
        counts.update(shard.counts)
    empty = sorted(set(listing.counts) - set(counts) - {NO_CLASS})
    if empty:
        raise DataError(
            f"no image of the class {empty[0]!r} can be used: "
            + next(
                f"{each['file']} {each['reason']}"
                for each in work.left_out
                if empty[0] in labels_of(each["label"])
            )
        )
    return counts
