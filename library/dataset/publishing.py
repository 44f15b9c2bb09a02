"""Finished shards get their names, and a manifest that lists them."""

import csv
import io
from glob import escape
from pathlib import Path

from library.dataset.manifest import Manifest, manifest_path, read_manifest, write_manifest
from library.dataset.sources import labels_of
from library.errors import DataError
from library.files import PARTIAL, write_file


def rejected_path(folder, name):
    """Give the path of the list of what was left out of the split `name`."""
    return Path(folder) / f"{name}.rejected.csv"


def publish(work, classes, counts, settings, base=None, labels="one"):
    """Give all finished shards their names, write the manifest, drop what it replaces; return it.

    The shards follow those of the manifest `base`, if there is one. `labels` are as in a Manifest.
    """
    _remove_partials(work)
    previous = _previous_shards(work)
    if base is None:
        # First of all: until the new one is written, there is no split of this name. With a base,
        # the old one stays true all the while, for no file that it lists is touched.
        manifest_path(work.target, work.name).unlink(missing_ok=True)
    left_out = work.left_out
    _write_rejected(work, left_out, base)
    shown = tuple({"file": each["file"], "reason": each["reason"]} for each in left_out)
    manifest = Manifest(
        folder=work.target,
        name=work.name,
        classes=classes,
        class_counts=tuple(
            counts[each] + (base.class_counts[label] if base else 0)
            for label, each in enumerate(classes)
        ),
        shards=(base.shards if base else ()) + work.publish(),
        settings=settings,
        left_out=(base.left_out if base else ()) + shown,
        left_out_count=len(left_out) + (base.left_out_count if base else 0),
        labels=labels,
    )
    write_manifest(manifest)
    for stale in previous - set(manifest.paths):
        stale.unlink(missing_ok=True)
    work.remove()
    return manifest


def _remove_partials(work):
    """Delete what a conversion killed while it published left half-written beside the shards."""
    for path in (manifest_path(work.target, work.name), rejected_path(work.target, work.name)):
        # Only of this split: another may be under way in the same folder.
        for partial in work.target.glob(f".{escape(path.name)}.*{PARTIAL}"):
            partial.unlink(missing_ok=True)


def _previous_shards(work):
    try:
        return set(read_manifest(work.target, work.name).paths)
    except DataError:
        return set()


def _write_rejected(work, left_out, base):
    path = rejected_path(work.target, work.name)
    before = ""
    if base and path.exists():
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
    if not left_out and not base:
        path.unlink(missing_ok=True)
    if not left_out:
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if not before:
        rows.writerow(["file", "label", "reason"])
    rows.writerows(
        [each["file"], "|".join(labels_of(each["label"])), each["reason"]] for each in left_out
    )
    write_file(path, (before + text.getvalue()).encode("utf-8", "surrogateescape"))
