"""The images whose labels are probably wrong, in cleaning/suspects.json of a run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from library.errors import DataError, reason_of
from library.files import parse_json, read_regular_file, write_file

CLEANING_FOLDER = "cleaning"
SUSPECTS = "suspects.json"
THUMBNAILS = "thumbnails"
# Why an image is suspected.
CONFIDENT_LEARNING, NEIGHBORS, DUPLICATE = "confident_learning", "neighbors", "duplicate"
# Where the probabilities come from: the networks of folds, one that was not trained on the split,
# or one that was.
OUT_OF_FOLD, HELD_OUT, IN_SAMPLE = "out_of_fold", "held_out", "in_sample"
_VERSION = 1


@dataclass(frozen=True)
class NearImage:
    """An image near a suspect.

    Attributes:
        file: Its name, as converted.
        label: The names of its classes.
        thumbnail: Path of its thumbnail, relative to the folder.
    """

    file: str
    label: list[str]
    thumbnail: str


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        id: Position in the ranking, from 0.
        file: Its name, as converted.
        sha256: Of the original file's content; None if the file was not found.
        label: The names of the given classes: one, or any number if multi-label.
        suggestion: The names of the classes that fit best.
        score: In [0, 1]; the lower, the more suspicious.
        reasons: Any of CONFIDENT_LEARNING, NEIGHBORS, DUPLICATE.
        explanation: The reasons in words, one line.
        probability_label: Probability of the given class; if multi-label, that of the least
            probable answer for a class.
        probability_suggestion: That of the suggested class, or of the suggested answer for the same
            class.
        thumbnail: Path of its thumbnail, relative to the folder.
        neighbors: The images nearest to it, and those that it duplicates.
    """

    id: int
    file: str
    sha256: str | None
    label: list[str]
    suggestion: list[str]
    score: float
    reasons: list[str]
    explanation: str
    probability_label: float
    probability_suggestion: float
    thumbnail: str
    neighbors: list[NearImage]


@dataclass(frozen=True)
class Suspects:
    """The suspects of a split, worst first.

    Attributes:
        classes: The class names in label order.
        multi_label: Whether an image may have several classes, or none.
        split: The split's name.
        dataset_dir: Where the images were converted from; None if that is unknown.
        run: The run directory.
        predictions: OUT_OF_FOLD, HELD_OUT or IN_SAMPLE.
        images: Number of images that were ranked.
        suspects: The worst of them.
    """

    classes: list[str]
    multi_label: bool
    split: str
    dataset_dir: str | None
    run: str
    predictions: str
    images: int
    suspects: list[Suspect]


def write_suspects(folder: str | Path, suspects: Suspects) -> None:
    """Write suspects.json into a folder, whole or not at all."""
    content = {"version": _VERSION, **asdict(suspects)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(Path(folder) / SUSPECTS, text.encode("utf-8", "replace"))


def read_suspects(folder: str | Path) -> Suspects:
    """Return the suspects in a folder. Raises DataError if there are none, or they are damaged."""
    path = Path(folder) / SUSPECTS
    try:
        content = parse_json(read_regular_file(path))
        if content.pop("version") != _VERSION:
            raise ValueError("its version is another one")
        return _from_json(content)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is missing; to rank the labels that are probably wrong: python run.py clean"
        ) from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged, or of another version ({error}); run the command clean again"
        ) from None


def _from_json(content: dict[str, Any]) -> Suspects:
    """Return the suspects. Raises ValueError, TypeError or KeyError if something is wrong."""
    suspects = [
        Suspect(**each | {"neighbors": [NearImage(**near) for near in each["neighbors"]]})
        for each in content.pop("suspects")
    ]
    found = Suspects(suspects=suspects, **content)
    known = set(found.classes)
    for number, each in enumerate(suspects):
        thumbnails = [each.thumbnail, *(near.thumbnail for near in each.neighbors)]
        # Served by name: no other file may be reached.
        if any(Path(name).parts[:-1] != (THUMBNAILS,) or ".." in name for name in thumbnails):
            raise ValueError(f"a thumbnail of {each.file!r} is not in {THUMBNAILS}/")
        if each.id != number or not known.issuperset([*each.label, *each.suggestion]):
            raise ValueError(f"the entry of {each.file!r} contradicts the others")
    return found
