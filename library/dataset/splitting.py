"""Which split an image belongs to: a function of its name alone, so that adding some moves none."""

import re

from library.dataset.listing import name_hash
from library.dataset.sources import SPLITS
from library.errors import DataError, SettingsError

TRAINING = SPLITS[0]


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
    """Gives the split of a name. What `group_by` finds in names is kept together in one split."""

    def __init__(self, fractions, group_by="", seed=0):
        self.fractions = fractions
        self.salt = f"split {seed}".encode()
        try:
            self.pattern = re.compile(group_by) if group_by else None
        except re.error as error:
            raise SettingsError(
                f"group_by: {group_by!r} is no regular expression: {error}"
            ) from None

    def split_of(self, name):
        """Give the split of the image `name`. Raises DataError if it is of no group.

        Every class is divided in the same proportions, each image (or group) by chance of its own:
        drawn from its name, so that neither other images nor their order matter.
        """
        share = int.from_bytes(name_hash(self._group(name), 8, self.salt), "big") / 2**64
        # From the last split down, so that train, the first, takes what rounding leaves.
        for split, fraction in reversed(self.fractions.items()):
            if share < fraction:
                return split
            share -= fraction
        return TRAINING

    def puts(self, split, file):
        """Tell whether a LabelledFile belongs to `split`."""
        return self.split_of(file.name) == split

    def _group(self, name):
        if self.pattern is None:
            return name
        found = self.pattern.search(name)
        if not found:
            raise DataError(f"group_by: nothing in {name!r} matches {self.pattern.pattern!r}")
        # The first group of the pattern, if it has one.
        return found[1] if self.pattern.groups and found[1] is not None else found[0]
