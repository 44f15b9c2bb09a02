"""Which split an image belongs to: a function of its name alone, so that adding some moves none.

Of n images of a class a split with the fraction f has about n·f, within some sqrt(n·f·(1-f)). To be
exact, or to promise at least one, it would have to move an image when others come or go. So it is
told instead where a class has none, and refused where nothing could be learned of it.
"""

import re
from collections import Counter

from library.dataset.file_index import name_hash
from library.dataset.sources.base import NO_CLASS, SPLITS
from library.errors import DataError, SettingsError
from library.messages import counted

TRAINING = SPLITS[0]
_REMEDY = "add images, or draw anew with another --random_seed"


def read_fractions(words):
    """Give {split: fraction} of words such as "validation=0.1"; train has the rest, and is first.

    Raises SettingsError for words that make no sense.
    """
    fractions = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            fraction = float(text)
        except ValueError:
            raise SettingsError(f"split: {word!r} should be like validation=0.1") from None
        if name not in SPLITS or name in fractions:
            raise SettingsError(f"split: {name!r} should be one of {', '.join(SPLITS)}, once")
        if not 0 < fraction < 1:
            raise SettingsError(f"split: {name} is {text}, not between 0 and 1")
        fractions[name] = fraction
    rest = 1 - sum(fractions.values())
    if fractions.get(TRAINING, rest) <= 0 or (TRAINING in fractions and abs(rest) > 1e-9):
        raise SettingsError(
            f"split: {', '.join(words)} leave nothing for train, or not all is used"
        )
    return {TRAINING: fractions.pop(TRAINING, rest), **fractions}


class Splitter:
    """Return the split of a name. What `group_by` finds in names is kept together in one split."""

    def __init__(self, fractions, group_by="", seed=0):
        self.fractions = fractions
        self.salt = f"split {seed}".encode()
        # {class: {split: images}}, once all files were divided.
        self.counts = {}
        try:
            self.pattern = re.compile(group_by) if group_by else None
        except re.error as error:
            raise SettingsError(
                f"group_by: {group_by!r} is no regular expression: {error}"
            ) from None

    def split_of(self, name):
        """Return the split of the image `name`. Raises DataError if it is of no group.

        Each image (or group) has a chance of its own, drawn from its name: neither other images nor
        their order matter.
        """
        share = int.from_bytes(name_hash(self._group(name), 8, self.salt), "big") / 2**64
        # From the last split down, so that train, the first, takes what rounding leaves.
        for split, fraction in reversed(self.fractions.items()):
            if share < fraction:
                return split
            share -= fraction
        return TRAINING

    def divide(self, files, split):
        """Yield those of all LabeledFiles that belong to `split`.

        Raises DataError, after the last, if a split has no images, or a class none in train.
        """
        self.counts = {}
        for file in files:
            belongs_to = self.split_of(file.name)
            for label in file.labels:
                self.counts.setdefault(label, Counter())[belongs_to] += 1
            if belongs_to == split:
                yield file
        self._check()

    def lacking(self, split):
        """Give {class: images in all splits} of the classes without an image in `split`."""
        return {
            label: counts.total()
            for label, counts in sorted(self.counts.items())
            if not counts[split] and label != NO_CLASS
        }

    def _check(self):
        for split in self.fractions:
            if self.counts and not any(counts[split] for counts in self.counts.values()):
                raise DataError(f"split: no image falls to {split}: {_REMEDY}")
        for label, count in self.lacking(TRAINING).items():
            images = counted(count, "image")
            raise DataError(f"split: {label!r} has {images}, none in {TRAINING}: {_REMEDY}")

    def _group(self, name):
        if self.pattern is None:
            return name
        found = self.pattern.search(name)
        if not found:
            raise DataError(f"group_by: nothing in {name!r} matches {self.pattern.pattern!r}")
        # The first group of the pattern, if it has one.
        return found[1] if self.pattern.groups and found[1] is not None else found[0]
