"""Assign images to splits by their names alone, so that adding images moves none.

Of n images of a class, a split with the fraction f gets about n·f, give or take sqrt(n·f·(1-f)). An
exact share would mean moving images when others come or go; a class without images in a split is
reported instead. Only the training split gets one image of each class, whatever is drawn; folds of
a cross-validation, each of which is a part of training splits, do so together.
"""

import collections
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from library.dataset.file_index import name_hash
from library.dataset.sources.base import (
    FIRST_FOLD,
    NO_CLASS,
    SPLITS,
    TRAINING,
    LabeledFile,
    composed,
    fold_names,
)
from library.errors import DataError, SettingsError

_FOLDS = "folds"
_MAX_FOLDS = 100


def read_fractions(words: Sequence[str]) -> dict[str, float]:
    """Return {split: fraction} of words such as "validation=0.1"; train, the first, has the rest.

    Instead of train and validation there may be "folds=5", which share the rest evenly.
    Raises SettingsError for words that make no sense.
    """
    folds = [each for each in words if each.partition("=")[0] == _FOLDS]
    if folds:
        names = fold_names(_read_fold_count(folds))
        others = read_fractions([each for each in words if each not in folds])
        if wrong := sorted(others.keys() - {TRAINING, "test"}):
            raise SettingsError(f"split: folds take the place of {wrong[0]}; leave it out")
        share = others.pop(TRAINING) / len(names)
        return dict.fromkeys(names, share) | others
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
                f"split: {problem} name {name!r}; use {', '.join(SPLITS)}, each once, or "
                f"{_FOLDS} and test"
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


def _read_fold_count(words: Sequence[str]) -> int:
    text = words[0].partition("=")[2]
    if len(words) > 1 or not re.fullmatch("[0-9]{1,9}", text) or not 2 <= int(text) <= _MAX_FOLDS:
        raise SettingsError(
            f"split: {', '.join(words)} should be like folds=5, once, from 2 to {_MAX_FOLDS} folds"
        )
    return int(text)


class Splitter:
    """Assigns each name to a split.

    Attributes:
        fractions: {split: fraction}, the training split or the folds first.
        group_by: Pattern; images whose names have the same match are in the same split.
        folds: Names of the folds, if there are any.
        labels: All classes found, once the first split was divided.
        moved: Names of the files that are in the first split only because it, or all folds, would
            lack their class otherwise, once it was divided.
    """

    def __init__(
        self, fractions: dict[str, float], group_by: str | None = None, seed: int = 0
    ) -> None:
        """Take the settings.

        Args:
            fractions: {split: fraction}, as `read_fractions` returns them.
            group_by: Pattern; images whose names have the same match are in the same split.
            seed: Another seed assigns the names differently.
        """
        self.fractions = fractions
        self.group_by = group_by
        self.first = next(iter(fractions))
        self.folds = fractions.keys() - {"test"} if self.first == FIRST_FOLD else set()
        self.labels: set[str] = set()
        self.moved: list[str] = []
        # Images drawn for each split, and the groups moved to the first split, once known.
        self._drawn: Counter[str] = Counter()
        self._moved_groups: set[str] | None = None
        self._salt = f"split {seed}".encode()
        try:
            self._pattern = re.compile(group_by) if group_by else None
        except re.error as error:
            raise SettingsError(
                f"group_by: {group_by!r} is not a regular expression: {error}"
            ) from None

    def __str__(self) -> str:
        """Return the words that the fractions were read from, as a manifest records them."""
        others = {each: self.fractions[each] for each in self.fractions if each not in self.folds}
        words = [f"{_FOLDS}={len(self.folds)}"] if self.folds else []
        return ",".join([*words, *(f"{name}={part:.6g}" for name, part in others.items())])

    def split_of(self, name: str) -> str:
        """Return the split that is drawn for the image `name`. Raise DataError if no group matches.

        It is drawn from a hash of the name (or group): neither other images nor their order matter.
        """
        share = self._share(self._group(name))
        # From the last split backwards, so that the first gets what rounding leaves.
        for split, fraction in reversed(self.fractions.items()):
            if share < fraction:
                return split
            share -= fraction
        return self.first

    def divide(
        self, find: Callable[[], Iterable[LabeledFile]], split: str
    ) -> Iterator[LabeledFile]:
        """Yield the files that belong to `split`.

        Args:
            find: Returns all files, in the same order each time.
            split: The split's name.
        """
        if split == self.first:
            yield from self._divide_first(find)
            return
        if self._moved_groups is None:
            collections.deque(self._divide_first(find), maxlen=0)
        for file in find():
            is_moved = self._moved_groups and self._group(file.name) in self._moved_groups
            if not is_moved and self.split_of(file.name) == split:
                yield file

    def _divide_first(self, find: Callable[[], Iterable[LabeledFile]]) -> Iterator[LabeledFile]:
        self._drawn, self.moved = Counter(), []
        labels: set[str] = set()
        trained = {NO_CLASS}
        for file in find():
            split = self.split_of(file.name)
            self._drawn[split] += 1
            labels.update(file.labels)
            if split == self.first or split in self.folds:
                trained.update(file.labels)
            if split == self.first:
                yield file
        self.labels = labels - {NO_CLASS}
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
