"""A ranking in words and as files: the suspects with the reasons for each, and a row per image."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from library.cleaning.ranking import Ranking
from library.cleaning.suspects import (
    CONFIDENT_LEARNING,
    DUPLICATE,
    NEIGHBORS,
    THUMBNAILS,
    NearImage,
    Suspect,
)
from library.errors import printable
from library.files import new_file, sha256_of
from library.messages import listed
from library.prediction.image_outputs import ImageOutputs

RANKING = "ranking.csv"
RANKING_COLUMNS = (
    *("file", "label", "suggestion", "score", "suspected", "reasons"),
    *("probability_label", "probability_suggestion"),
)
# Between the classes of an image, and between reasons.
SEPARATOR = "|"
# Images that are shown beside a suspect, duplicates first.
_MAX_NEAR = 6


@dataclass(frozen=True)
class Evidence:
    """What is known about the labels of a split's images, and how to say it.

    Attributes:
        ranking: The ranking.
        outputs: What networks say about the images.
        source: The folder from which they were converted; None if it is unknown or gone.
    """

    ranking: Ranking
    outputs: ImageOutputs
    source: Path | None = None
    _duplicates: Mapping[int, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups = {int(image): group for group in self.ranking.duplicates for image in group}
        object.__setattr__(self, "_duplicates", groups)

    def worst(self, count: int) -> list[int]:
        """Return the worst images for whose labels anything is wrong, at most `count`."""
        return list(islice(filter(self.reasons, self.ranking.order.tolist()), count))

    def reasons(self, image: int) -> list[str]:
        """Return why an image's label may be wrong."""
        ranking = self.ranking
        found = {
            # Where all the evidence together is needed, the network's is the most of it.
            CONFIDENT_LEARNING: ranking.contradicted[image]
            or (ranking.is_suspected[image] and not ranking.outvoted[image]),
            NEIGHBORS: ranking.outvoted[image],
            DUPLICATE: image in self._duplicates,
        }
        return [reason for reason, is_found in found.items() if is_found]

    def near(self, image: int) -> list[int]:
        """Return the images to show beside one: those that it duplicates, then its neighbors."""
        votes = self.ranking.votes
        neighbors = [] if votes is None else votes.indices[image].tolist()
        same = [each for each in self._duplicates.get(image, ()) if each != image]
        found = dict.fromkeys(int(each) for each in (*same, *neighbors) if each >= 0)
        return list(found)[:_MAX_NEAR]

    def suspect(self, number: int, image: int, thumbnails: Mapping[int, str]) -> Suspect:
        """Return an image as an entry of suspects.json.

        Args:
            number: Its position in the ranking.
            image: Its index.
            thumbnails: Index of an image → name of its thumbnail.
        """
        name = self.outputs.names[image]
        own, suggested = self.probabilities(image)
        return Suspect(
            id=number,
            file=name,
            sha256=self._sha256(name),
            label=self.label(image),
            suggestion=self.suggestion(image),
            score=round(float(self.ranking.scores[image]), 6),
            reasons=self.reasons(image),
            explanation=self.explain(image),
            probability_label=round(own, 6),
            probability_suggestion=round(suggested, 6),
            thumbnail=f"{THUMBNAILS}/{thumbnails[image]}",
            neighbors=[
                NearImage(
                    self.outputs.names[each],
                    self.label(each),
                    f"{THUMBNAILS}/{thumbnails[each]}",
                )
                for each in self.near(image)
            ],
        )

    def row(self, image: int) -> Sequence[object]:
        """Return an image's row in ranking.csv."""
        return (
            self.outputs.names[image],
            SEPARATOR.join(self.label(image)),
            SEPARATOR.join(self.suggestion(image)),
            f"{self.ranking.scores[image]:.6f}",
            int(self.ranking.is_suspected[image]),
            SEPARATOR.join(self.reasons(image)),
            *(f"{each:.6f}" for each in self.probabilities(image)),
        )

    def label(self, image: int) -> list[str]:
        """Return the names of an image's classes."""
        return self._names(self.outputs.labels[image])

    def suggestion(self, image: int) -> list[str]:
        """Return the names of the classes that fit best."""
        return self._names(self.ranking.suggestions[image])

    def probabilities(self, image: int) -> tuple[float, float]:
        """Return the probability of the label, or the worst answer, and of what is suggested."""
        row, asked = self.outputs.probabilities[image], self.ranking.answers[image]
        if not self.outputs.is_multi_label:
            return float(row[asked]), float(row[self.ranking.suggestions[image]])
        yes = float(row[asked])
        return (yes, 1 - yes) if self.outputs.labels[image, asked] else (1 - yes, yes)

    def explain(self, image: int) -> str:
        """Return the evidence about an image's label on one line."""
        own, suggested = self.probabilities(image)
        given, better = self._answers(image)
        parts = [f"probability {own:.2f} of {given}, {suggested:.2f} of {better}"]
        if votes := self._count_votes(image):
            agree, of_better, total = votes
            parts.append(f"of {total} nearest images, {agree} are {given}, {of_better} {better}")
        if image in self._duplicates:
            same = [each for each in self._duplicates[image] if each != image]
            found = [
                f"{printable(self.outputs.names[each])} ({self._shown(each)})" for each in same
            ]
            parts.append(f"the same image, or nearly so, with another label: {listed(found)}")
        return "; ".join(parts)

    def _answers(self, image: int) -> tuple[str, str]:
        """Return the given and the suggested class, or the two answers about the worst class."""
        asked = int(self.ranking.answers[image])
        names = [printable(each) for each in self.outputs.classes]
        if not self.outputs.is_multi_label:
            return repr(names[asked]), repr(names[int(self.ranking.suggestions[image])])
        answers = repr(names[asked]), f"not {names[asked]!r}"
        return answers if self.outputs.labels[image, asked] else answers[::-1]

    def _count_votes(self, image: int) -> tuple[int, int, int] | None:
        """Return how many neighbors have the label, how many the suggestion, and their number."""
        if self.ranking.votes is None:
            return None
        near = self.ranking.votes.indices[image]
        labels, asked = self.outputs.labels, self.ranking.answers[image]
        voted = labels[near[near >= 0]]
        if self.outputs.is_multi_label:
            agree = int((voted[:, asked] == labels[image, asked]).sum())
            return agree, len(voted) - agree, len(voted)
        suggested = int((voted == self.ranking.suggestions[image]).sum())
        return int((voted == asked).sum()), suggested, len(voted)

    def _names(self, label: np.ndarray) -> list[str]:
        classes = np.flatnonzero(label) if np.ndim(label) else np.atleast_1d(label)
        return [self.outputs.classes[each] for each in classes.tolist()]

    def _shown(self, image: int) -> str:
        return " and ".join(self.label(image)) or "no class"

    def _sha256(self, name: str) -> str | None:
        path = self.source / name if self.source else None
        try:
            return sha256_of(path) if path and path.is_file() else None
        except (OSError, ValueError):
            return None


def write_ranking(folder: Path, evidence: Evidence) -> None:
    """Write ranking.csv, with a row for each image, the worst first."""
    with new_file(folder / RANKING) as binary:
        file = io.TextIOWrapper(binary, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(file)
        writer.writerow(RANKING_COLUMNS)
        writer.writerows(map(evidence.row, evidence.ranking.order.tolist()))
        file.flush()
        file.detach()
