"""Assign images to splits by their names alone, so that adding images moves none.

Of n images of a class, a split with the fraction f gets about n·f, give or take sqrt(n·f·(1-f)). An
exact share, or at least one image, would mean moving images when others come or go. So a class
without images in a split is reported instead, and refused if that split is the training split.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from library.dataset.file_index import name_hash
from library.dataset.sources.base import NO_CLASS, SPLITS, TRAINING, LabeledFile
from library.errors import DataError, SettingsError
from library.messages import counted

_REMEDY = "add images, or try another --random_seed"


def read_fractions(words: Sequence[str]) -> dict[str, float]:
    """Return {split: fraction} of words such as "validation=0.1"; train, the first, has the rest.

    Raises SettingsError for words that make no sense.
    """
    fractions: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            fraction = float(text)
        except ValueError:
            raise SettingsError(f"split: {word!r} should be like validation=0.1") from None
        if name not in SPLITS or name in fractions:
            problem = "duplicate" if name in fractions else "unknown"
            raise SettingsError(
                f"split: {problem} name {name!r}; use {', '.join(SPLITS)}, each once"
            )
        if not 0 < fraction < 1:
            raise SettingsError(f"split: {name} is {text}, not between 0 and 1")
        fractions[name] = fraction
    rest = 1 - sum(fractions.values())
    if fractions.get(TRAINING, rest) <= 0 or (TRAINING in fractions and abs(rest) > 1e-9):
        raise SettingsError(
            f"split: {', '.join(words)} leave nothing for train, or do not add up to 1"
        )
    return {TRAINING: fractions.pop(TRAINING, rest), **fractions}


class Splitter:
    """Assigns each name to a split.

    Attributes:
        fractions: {split: fraction}, the training split first.
        counts: {class: {split: images}}, once all files were assigned.
    """

    def __init__(
        self, fractions: dict[str, float], group_by: str | None = None, seed: int = 0
    ) -> None:
        """Take the settings.

        Args:
            fractions: {split: fraction}, the training split first, as `read_fractions` returns.
            group_by: Pattern; images whose names have the same match are in the same split.
            seed: Another seed assigns the names differently.
        """
        self.fractions = fractions
        self.counts: dict[str, Counter[str]] = {}
        self._salt = f"split {seed}".encode()
        try:
            self._pattern = re.compile(group_by) if group_by else None
        except re.error as error:
            raise SettingsError(
                f"group_by: {group_by!r} is not a regular expression: {error}"
            ) from None

    def split_of(self, name: str) -> str:
        """Return the split of the image `name`. Raise DataError if no group matches.

        The split is drawn from a hash of the name (or group): neither other images nor their order
        matter.
        """
        share = int.from_bytes(name_hash(self._group(name), 8, self._salt), "big") / 2**64
        # From the last split backwards, so that train, the first, gets what rounding leaves.
        for split, fraction in reversed(self.fractions.items()):
            if share < fraction:
                return split
            share -= fraction
        return TRAINING

    def divide(self, files: Iterable[LabeledFile], split: str) -> Iterator[LabeledFile]:
        """Yield the files that belong to `split`.

        Raises DataError, after the last, if a split has no images, or train lacks a class.
        """
        self.counts = {}
        for file in files:
            assigned = self.split_of(file.name)
            for label in file.labels:
                self.counts.setdefault(label, Counter())[assigned] += 1
            if assigned == split:
                yield file
        self._check()

    def lacking(self, split: str) -> dict[str, int]:
        """Return {class: images in all splits} of the classes without an image in `split`."""
        return {
            label: counts.total()
            for label, counts in sorted(self.counts.items())
            if not counts[split] and label != NO_CLASS
        }

    def _check(self) -> None:
        for split in self.fractions:
            if self.counts and not any(counts[split] for counts in self.counts.values()):
                raise DataError(f"split: {split} gets no image: {_REMEDY}")
        for label, count in self.lacking(TRAINING).items():
            images = counted(count, "image")
            raise DataError(f"split: {label!r} has {images}, none in {TRAINING}: {_REMEDY}")

    def _group(self, name: str) -> str:
        if self._pattern is None:
            return name
        found = self._pattern.search(name)
        if not found:
            raise DataError(f"group_by: nothing in {name!r} matches {self._pattern.pattern!r}")
        # The first group of the pattern, if it has one.
        return found[1] if self._pattern.groups and found[1] is not None else found[0]
