"""Labelled files → images → records → shards and a manifest: parallel, resumable, all or nothing."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from library.dataset.images import ImageOptions
from library.dataset.listing import Listing
from library.dataset.manifest import (
    Manifest,
    check_hashes,
    manifest_path,
    read_manifest,
    write_manifest,
)
from library.dataset.recording import MakeRecord, Task
from library.dataset.shards import ShardWriter, WorkFolder
from library.dataset.workers import Workers
from library.errors import DataError
from library.files import write_file

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

# What is held of an image while it is decoded, at most: 16 bytes for each of its pixels.
_LEAST_WORKER_MEMORY = 2 << 30


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert. `num_shards` and `num_workers` of 0 are chosen to fit."""

    images: ImageOptions = field(default_factory=ImageOptions)
    num_shards: int = 0
    num_workers: int = 0
    random_seed: int = 0
    max_bad_fraction: float = 0.01
    seconds_per_image: float = 60


def convert(find, folder, name, options, find_classes=sorted, source=""):
    """Convert the files that `find()` yields into the split `name` in `folder`; give its Manifest.

    `find_classes` gives the classes in the order of their ids, from the labels found. Raises
    DataError, and leaves whatever was there before as it was, where too many files are unusable.
    """
    memory_bytes = max(_LEAST_WORKER_MEMORY, 16 * options.images.max_pixels)
    most = options.num_workers or available_cores()
    function = MakeRecord(options.images)
    with Workers(function, most, memory_bytes, options.seconds_per_image) as workers:
        listing = Listing(find(), options.random_seed)
        if not len(listing):
            raise DataError(f"{source} holds no images: put them at {source}/<class>/<image>")
        classes = tuple(find_classes(listing.counts))
        plan = _plan(listing, classes, options)
        done = _already_done(folder, name, plan)
        if done:
            return done
        work = WorkFolder(folder, name, plan)
        try:
            _convert_all(listing, classes, work, workers, options)
            counts = _count_classes(work, listing)
        except DataError:
            work.remove()
            raise
        finally:
            listing.close()
        settings = {"source": str(source), "plan": plan, **_choices(options)}
        return _publish(work, classes, counts, settings)


def available_cores():
    """Give how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rejected_path(folder, name):
    """Give the path of the list of what was left out of the split `name`."""
    return Path(folder) / f"{name}.rejected.csv"


def _choices(options):
    choices = asdict(options.images)
    return {**choices, "num_shards": options.num_shards, "random_seed": options.random_seed}


def _plan(listing, classes, options):
    """Give a hash of all that the shards' bytes depend on."""
    libraries = {each: version(each) for each in ("pillow", "simplejpeg", "opencv-python-headless")}
    facts = [len(listing), str(listing.fingerprint), classes, _choices(options), libraries]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _already_done(folder, name, plan):
    """Give the Manifest of a conversion by the same plan whose shards are all as they were."""
    try:
        manifest = read_manifest(folder, name)
        if manifest.settings.get("plan") != plan:
            return None
        check_hashes(manifest)
    except DataError:
        return None
    return manifest


def _convert_all(listing, classes, work, workers, options):
    """Bring all files of the listing that are not yet in a finished shard into one."""
    total = len(listing)
    allowed = int(options.max_bad_fraction * total)
    left_out = work.left_out
    labels = {text: label for label, text in enumerate(classes)}
    workers.grow(1 + max(total // _FILES_PER_WORKER, listing.bytes // _BYTES_PER_WORKER))
    batches = _batches(listing, work.position, labels)
    writer = ShardWriter(work, _shard_end(total, options.num_shards))
    bar = tqdm(total=total, initial=work.position, unit=" images", desc=work.name)
    try:
        for tasks, results in workers.map(batches):
            for task, (is_record, result) in zip(tasks, results, strict=True):
                if is_record:
                    writer.write(result, task.text)
                    continue
                writer.leave_out(task, result)
                left_out.append({"file": task.name, "reason": result})
                if len(left_out) > allowed:
                    raise DataError(_too_many(left_out, total, options.max_bad_fraction))
            bar.update(len(tasks))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    finally:
        bar.close()


def _batches(listing, position, labels):
    """Yield lists of Tasks for the files of the listing from `position` on."""
    batch, size = [], 0
    for number in range(position, len(listing)):
        file = listing[number]
        batch.append(Task(file.place, labels[file.label], file.label, file.name))
        size += file.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shard_end(total, num_shards):
    """Give the function that says when a shard ends."""
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
        f"at least {len(left_out)} of {total:,} files can't be used, more than max_bad_fraction "
        f"({fraction:g}) allows: {examples}{more}"
    )


def _count_classes(work, listing):
    counts = Counter()
    for shard in work.finished:
        counts.update(shard.counts)
    empty = sorted(set(listing.counts) - set(counts))
    if empty:
        raise DataError(
            f"no image of the class {empty[0]!r} can be used: "
            + next(
                f"{each['file']} {each['reason']}"
                for each in work.left_out
                if each["label"] == empty[0]
            )
        )
    return counts


def _publish(work, classes, counts, settings):
    """Give all shards their names, write the manifest, and drop what it replaces."""
    path = manifest_path(work.target, work.name)
    previous = _previous_shards(work)
    # First of all: from here on, until the new one is written, there is no split of this name.
    path.unlink(missing_ok=True)
    left_out = work.left_out
    _write_rejected(work, left_out)
    manifest = Manifest(
        folder=work.target,
        name=work.name,
        classes=classes,
        class_counts=tuple(counts[each] for each in classes),
        shards=work.publish(),
        settings=settings,
        left_out=tuple({"file": each["file"], "reason": each["reason"]} for each in left_out),
        left_out_count=len(left_out),
    )
    write_manifest(manifest)
    for stale in previous - set(manifest.paths):
        stale.unlink(missing_ok=True)
    work.remove()
    return manifest


def _previous_shards(work):
    try:
        return set(read_manifest(work.target, work.name).paths)
    except DataError:
        return set()


def _write_rejected(work, left_out):
    path = rejected_path(work.target, work.name)
    if not left_out:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "label", "reason"])
    rows.writerows([each["file"], each["label"], each["reason"]] for each in left_out)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))
