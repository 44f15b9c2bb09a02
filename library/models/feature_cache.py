"""The features of a frozen base are made once, and written to disk: whole or not at all."""

import contextlib
import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from library.errors import UserError, reason_of
from library.files import PARTIAL, find_damage, locked, new_folder, seal_folder
from library.inputs.caching import remove_if_dead
from library.inputs.interfaces import SplitInputs
from library.messages import counted
from library.models.features import (
    FEATURES,
    LABELS,
    CachedEvaluationInputs,
    CachedTrainingInputs,
    Features,
    FrozenBase,
    Numbers,
)


def cache_features(base, batches, numbers, examples, folder, key, report):
    """Return the Features of all examples, from `folder` if an earlier run kept them there.

    `base` is a FrozenBase, `batches` are (images, labels), `numbers` the examples' numbers in the
    order of these batches. `key` says all that makes features differ but the base. Of runs that
    want the same ones at once, the first makes them. Raises UserError if they can't be written.
    """
    name = hashlib.sha256(repr(key).encode() + base.fingerprint).hexdigest()[:32]
    folder = Path(folder) / f"features-{name}"

    if find_damage(folder) is not None:  # Most often, because there is no such folder.
        lock = folder.with_name(f".{folder.name}.lock")
        with _naming_failure(folder):
            _remove_leftovers(folder.parent)
            with locked(lock, f"the feature cache {folder}", wait=True):
                _make(base, batches, numbers, examples, folder, report)
    return Features(examples, folder)


def numbers_of(keys):
    """Return the numbers in a data set of them, as an array."""
    # In large batches: one by one they take longer than they should.
    return np.concatenate(list(keys.batch(2**16).as_numpy_iterator()))


def _remove_leftovers(folder):
    """Delete what killed runs left half-written: what a live one writes has its lock."""
    for partial in folder.glob(f".features-*{PARTIAL}"):
        lock = partial.with_name(f".{partial.name.split('.')[1]}.lock")
        with contextlib.suppress(UserError), locked(lock, "", ""):
            remove_if_dead(partial)


@contextlib.contextmanager
def _naming_failure(folder):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"features can't be kept in {folder}: {reason_of(error)}: make room, choose "
            "another --cache_dir, or --cache_features never"
        ) from error


def _make(base, batches, numbers, examples, folder, report):
    if folder.exists():
        damage = find_damage(folder)
        if damage is None:
            return  # Made by the run that was waited for.
        report(f"the kept features in {folder} are damaged ({damage}): making them again")
        shutil.rmtree(folder)
    report(f"keeping the base's features of {counted(examples.count, 'image')} in {folder}")
    with new_folder(folder) as partial:
        _write(base, batches, numbers_of(numbers), examples, partial)
        seal_folder(partial)


def _write(base, batches, numbers, examples, folder):
    # float32 holds whatever a base computes in.
    row_bytes = 4 * math.prod(base.feature_shape)
    _check_space(folder, examples.count * row_bytes)
    shape, spec = (examples.count, *base.feature_shape), examples.label_spec
    labels = np.zeros((examples.count, *spec.shape), spec.dtype.as_numpy_dtype)
    done = 0
    with (
        # Row by row, as it may be more than the memory. Not mapped: on a full disk that is fatal.
        (folder / FEATURES).open("wb") as file,
        # No bar where stderr is no terminal.
        tqdm(total=examples.count, unit=" images", desc="features", disable=None) as bar,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        for images, batch_labels in batches:
            at = numbers[done : done + len(batch_labels)]
            for number, row in zip(at, base.features(images), strict=True):
                file.seek(begin + number * row_bytes)
                file.write(row)
            labels[at] = batch_labels
            done += len(at)
            bar.update(len(at))
    np.save(folder / LABELS, labels)


def _check_space(folder, needed):
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"they take {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free")


def cache_split_features(base, training, validation, fingerprints, views, folder, report):
    """Return the Inputs of features that `base` gives, one of a network that split_at_base split.

    `training` and `validation` are as TrainingInputs and EvaluationInputs in project/inputs.py,
    `fingerprints` those of their splits. `views` says of each view of the training images what
    makes it another one beside the order: the first is what epoch 0 would see, and so on. One that
    says nothing gives images as they are. Runs the base over all of these, unless an earlier run
    kept what it gave in `folder`.
    """
    base = FrozenBase(base)

    def keep(inputs, batches, numbers, fingerprint, view=()):
        key = (fingerprint, inputs.image_format, view)
        return replace(
            inputs,
            source=cache_features(base, batches, numbers, inputs.source, folder, key, report),
        )

    # Each image once: those of smaller classes are repeated when training. And in order, which
    # tells which features are whose.
    options = replace(training.options, deterministic=True)
    once = replace(training, is_oversampled=False, options=options)
    numbered = replace(once, source=Numbers(training.source))
    kept = []
    for epoch, view in enumerate(views):
        numbers = numbered.keys(epoch)
        # What is random about an example is a matter of its place in the order.
        what = (view, _hash_of(numbers)) if view else view
        kept.append(keep(training, once.batches(epoch), numbers, fingerprints[0], what))
    numbers = Numbers(validation.source).keys()
    in_order = keep(validation, validation.batches(), numbers, fingerprints[1])
    return SplitInputs(CachedTrainingInputs(tuple(kept)), CachedEvaluationInputs(in_order))


def _hash_of(numbers):
    return hashlib.sha256(numbers_of(numbers).tobytes()).hexdigest()
