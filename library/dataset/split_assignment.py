"""Assign images to splits by their names alone, so that adding images moves none.

Of n images of a class, a split with the fraction f gets about n·f, give or take sqrt(n·f·(1-f)). An
exact share would mean moving images when others come or go; a class without images in a split is
reported instead. Only the training split gets one image of each class, whatever is drawn.
"""

import collections
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from library.dataset.file_index import name_hash
from library.dataset.sources.base import NO_CLASS, SPLITS, TRAINING, LabeledFile, composed
from library.errors import DataError, SettingsError


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
        group_by: Pattern; images whose names have the same match are in the same split.
        moved: Names of the files that are in the training split only because it would lack their
            class otherwise, once it was divided.
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
        self.group_by = group_by
        self.moved: list[str] = []
        # Images drawn for each split, and the groups moved to the training split, once known.
        self._drawn: Counter[str] = Counter()
        self._moved_groups: set[str] | None = None
        self._salt = f"split {seed}".encode()
        try:
            self._pattern = re.compile(group_by) if group_by else None
        except re.error as error:
            raise SettingsError(
                f"group_by: {group_by!r} is not a regular expression: {error}"
            ) from None

    def split_of(self, name: str) -> str:
        """Return the split that is drawn for the image `name`. Raise DataError if no group matches.

        It is drawn from a hash of the name (or group): neither other images nor their order matter.
        """
        share = self._share(self._group(name))
        # From the last split backwards, so that train, the first, gets what rounding leaves.
        for split, fraction in reversed(self.fractions.items()):
            if share < fraction:
                return split
            share -= fraction
        return TRAINING

    def divide(
        self, find: Callable[[], Iterable[LabeledFile]], split: str
    ) -> Iterator[LabeledFile]:
        """Yield the files that belong to `split`.

        Args:
            find: Returns all files, in the same order each time.
            split: The split's name.
        """
        if split == TRAINING:
            yield from self._divide_training(find)
            return
        if self._moved_groups is None:
            collections.deque(self._divide_training(find), maxlen=0)
        for file in find():
            is_moved = self._moved_groups and self._group(file.name) in self._moved_groups
            if not is_moved and self.split_of(file.name) == split:
                yield file

    def _divide_training(self, find: Callable[[], Iterable[LabeledFile]]) -> Iterator[LabeledFile]:
        self._drawn, self.moved = Counter(), []
        labels: set[str] = set()
        trained = {NO_CLASS}
        for file in find():
            split = self.split_of(file.name)
            self._drawn[split] += 1
            labels.update(file.labels)
            if split == TRAINING:
                trained.update(file.labels)
                yield file
        lacking = labels - trained
        self._moved_groups = self._choose_groups(find(), lacking) if lacking else set()
        # Last, because only now it is known which.
        for file in find() if lacking else ():
            if self._group(file.name) in self._moved_groups:
                self.moved.append(file.name)
                yield file

    def _choose_groups(self, files: Iterable[LabeledFile], lacking: set[str]) -> set[str]:
        """Return few groups (or names) that have images of all classes in `lacking`.

        The groups with the most of these classes come first, and among them the one whose hash is
        nearest to those of the training split: adding an image to a class moves one other at most.
        """
        classes: dict[str, set[str]] = {}
        for file in files:
            if found := lacking.intersection(file.labels):
                classes.setdefault(self._group(file.name), set()).update(found)
        heap = [(-len(found), -self._share(group), group) for group, found in classes.items()]
        heapq.heapify(heap)
        chosen = set()
        while lacking:
            count, share, group = heapq.heappop(heap)
            still = len(classes[group] & lacking)
            if still == -count:
                chosen.add(group)
                lacking = lacking - classes[group]
            elif still:
                heapq.heappush(heap, (-still, share, group))
        return chosen

    def check(self, empty: str | None = None) -> None:
        """Raise DataError if a split got no images, among them the split `empty`."""
        for split in self.fractions if self._drawn else ():
            if split == empty or not self._drawn[split]:
                raise DataError(
                    f"split: {split} gets no image: add images, or try another --random_seed"
                )

    def _share(self, group: str) -> float:
        return int.from_bytes(name_hash(group, 8, self._salt), "big") / 2**64

    def _group(self, name: str) -> str:
        name = composed(name)
        if self._pattern is None:
            return name
        found = self._pattern.search(name)
        if not found:
            raise DataError(f"group_by: nothing in {name!r} matches {self._pattern.pattern!r}")
        # The first group of the pattern, if it has one.
        return found[1] if self._pattern.groups and found[1] is not None else found[0]
