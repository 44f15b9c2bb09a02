"""Both splits of a training become kept features: each view of its images, and validation."""

import hashlib
from dataclasses import replace

from library.transfer.features import (
    FrozenBase,
    Inputs,
    KeptTraining,
    KeptValidation,
    Numbers,
)
from library.transfer.keeping import keep_features, numbers_of


def keep_splits(base, training, validation, fingerprints, views, folder, report):
    """Give the Inputs of features that `base` gives, the one of a network that split_at_base split.

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
            source=keep_features(base, batches, numbers, inputs.source, folder, key, report),
        )

    # Each image once: those of smaller classes are repeated when training. And in order, which
    # tells which features are whose.
    reading = replace(training.reading, deterministic=True)
    once = replace(training, is_oversampled=False, reading=reading)
    numbered = replace(once, source=Numbers(training.source))
    kept = []
    for epoch, view in enumerate(views):
        numbers = numbered.keys(epoch)
        # What is random about an example is a matter of its place in the order.
        what = (view, _hash_of(numbers)) if view else view
        kept.append(keep(training, once.batches(epoch), numbers, fingerprints[0], what))
    numbers = Numbers(validation.source).keys()
    in_order = keep(validation, validation.batches(), numbers, fingerprints[1])
    return Inputs(KeptTraining(tuple(kept)), KeptValidation(in_order))


def _hash_of(numbers):
    return hashlib.sha256(numbers_of(numbers).tobytes()).hexdigest()
