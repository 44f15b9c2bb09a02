"""Write chosen images as CSV, or as tasks for Label Studio.

The tasks are of Label Studio's JSON import format (https://labelstud.io/guide/predictions): `data`
with the image's URL, and `predictions` with the network's class, so that each image comes with a
label to accept or to change.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from library.dataset.storage import is_remote
from library.errors import printable

# Names of the tags in the labeling interface, which the tasks refer to.
_IMAGE, _CHOICE = "image", "choice"
# Where Label Studio serves the files of its document root.
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True)
class Choice:
    """A chosen image.

    Attributes:
        file: Its name.
        classes: The network's answer: one class, or any number if multi-label.
        probability: Of the most likely class.
        uncertainty: From 0 to 1.
        distance: From the nearest labeled or earlier chosen image, from 0 to 2.
    """

    file: str
    classes: tuple[str, ...]
    probability: float
    uncertainty: float
    distance: float


def format_csv(choices: Sequence[Choice]) -> str:
    """Return CSV with an empty column `label`: filled in, it can be converted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "prediction", "probability", "uncertainty", "distance"])
    for each in choices:
        numbers = (each.probability, each.uncertainty, each.distance)
        names = [printable(each.file), "", printable("|".join(each.classes))]
        writer.writerow([*names, *(round(number, 6) for number in numbers)])
    return text.getvalue()


def format_label_studio(choices: Sequence[Choice], model_version: str, root: Path) -> str:
    """Return tasks for Label Studio as JSON.

    Args:
        choices: The images.
        model_version: What to call the network in Label Studio.
        root: The folder that Label Studio serves local files from, above all of them.
    """
    tasks = [_make_task(each, model_version, root) for each in choices]
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def _make_task(choice: Choice, model_version: str, root: Path) -> dict[str, Any]:
    result = {
        "id": "class",
        "type": "choices",
        "from_name": _CHOICE,
        "to_name": _IMAGE,
        "value": {"choices": list(choice.classes)},
    }
    return {
        "data": {
            _IMAGE: _url_of(choice.file, root),
            "file": printable(choice.file),
            "uncertainty": round(choice.uncertainty, 6),
        },
        "predictions": [
            {
                "model_version": model_version,
                "score": round(choice.probability, 6),
                "result": [result] if choice.classes else [],
            }
        ],
    }


def _url_of(file: str, root: Path) -> str:
    if is_remote(file):
        return file
    return _LOCAL_FILES + quote(os.fsencode(_absolute(file).relative_to(root)))


def _absolute(file: str) -> Path:
    """Return a path without dots; links stay, because Label Studio is to find the file by them."""
    return Path(os.path.abspath(file))  # noqa: PTH100


def count_hidden(files: Sequence[str]) -> int:
    """Return how many files Label Studio can't show, because they are in an archive."""
    return sum(not is_remote(each) and not Path(each).is_file() for each in files)


def find_document_root(files: Sequence[str]) -> Path:
    """Return the deepest folder that holds all local files, or the current one if it does."""
    folders = [_absolute(each).parent for each in files if not is_remote(each)]
    return Path(os.path.commonpath([Path.cwd(), *folders]))


def labeling_interface(classes: Sequence[str], *, multi_label: bool = False) -> str:
    """Return the labeling interface of a Label Studio project that the tasks fit."""
    number = "multiple" if multi_label else "single"
    values = "".join(f"<Choice value={quoteattr(each)}/>" for each in classes)
    return (
        f'<View><Image name="{_IMAGE}" value="${_IMAGE}"/><Choices name="{_CHOICE}" '
        f'toName="{_IMAGE}" choice="{number}">{values}</Choices></View>'
    )
