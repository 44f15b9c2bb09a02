"""The page of suspicious images: a file to look at or, served, to decide about them."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from library.cleaning.suspects import (
    CONFIDENT_LEARNING,
    DUPLICATE,
    IN_SAMPLE,
    NEIGHBORS,
    Suspect,
    Suspects,
    read_suspects,
)
from library.figures.html import link_pages, read_script, render
from library.files import write_file

PAGE = "index.html"
# Reasons in words.
_REASONS = {
    CONFIDENT_LEARNING: "the network is sure of another class",
    NEIGHBORS: "similar images have another label",
    DUPLICATE: "the same image has another label",
}
# Pairs of classes to filter by.
_MAX_PAIRS = 200


def write_page(folder: str | Path) -> Path:
    """Write the page of the suspects in a run's folder beside them, and return its path."""
    path = Path(folder) / PAGE
    write_file(path, render_page(read_suspects(folder)))
    link_pages(path.parent.parent)
    return path


def render_page(suspects: Suspects, review: Mapping[str, Any] | None = None) -> str:
    """Return the page as HTML; its thumbnails are files beside it.

    Args:
        suspects: The suspects, worst first.
        review: `version` and `decisions` (see decisions.py) of a page where a person decides. None:
            a page to look at.
    """
    pairs = Counter(map(_pair, suspects.suspects)).most_common(_MAX_PAIRS)
    numbers = {pair: number for number, (pair, _) in enumerate(pairs)}
    cards = [
        _card(each, suspects) | {"pair": numbers.get(_pair(each), "")} for each in suspects.suspects
    ]
    reasons = Counter(reason for each in suspects.suspects for reason in each.reasons)
    texts = [(name, _REASONS.get(name, name), count) for name, count in reasons.most_common()]
    entries = [
        {
            "id": each.id,
            "file": each.file,
            "label": _in_order(each.label, suspects.classes),
            "suggestion": _in_order(each.suggestion, suspects.classes),
            "can_accept": _can_accept(each, suspects),
            "neighbors": [near.label for near in each.neighbors],
        }
        for each in suspects.suspects
    ]
    data = {"suspects": entries, "classes": suspects.classes, "multi_label": suspects.multi_label}
    return render(
        "library.cleaning",
        "review.html",
        suspects=cards,
        classes=suspects.classes,
        images=suspects.images,
        split=suspects.split,
        run=suspects.run,
        command=f"python run.py serve --clean --run_dir {shlex.quote(suspects.run)}",
        is_in_sample=suspects.predictions == IN_SAMPLE,
        is_served=review is not None,
        pairs=pairs,
        reasons=texts,
        data=data | dict(review or {"version": "", "decisions": {}}) | {"is_served": bool(review)},
        script=read_script("library.cleaning", "review.js"),
    )


def _card(suspect: Suspect, suspects: Suspects) -> dict[str, Any]:
    """Return what the template shows of a suspect."""
    neighbors = [
        {"file": near.file, "label": _named(near.label), "thumbnail": quote(near.thumbnail)}
        for near in suspect.neighbors
    ]
    return {
        "id": suspect.id,
        "file": suspect.file,
        "given": _named(suspect.label),
        "suggested": _named(suspect.suggestion),
        "can_accept": _can_accept(suspect, suspects),
        "explanation": suspect.explanation,
        "reasons": suspect.reasons,
        "thumbnail": quote(suspect.thumbnail),
        "neighbors": neighbors,
    }


def _can_accept(suspect: Suspect, suspects: Suspects) -> bool:
    """Return whether the suggestion is another label, and one that an image can have."""
    is_possible = suspects.multi_label or len(suspect.suggestion) == 1
    return is_possible and set(suspect.suggestion) != set(suspect.label)


def _pair(suspect: Suspect) -> str:
    return f"{_named(suspect.label)} → {_named(suspect.suggestion)}"


def _in_order(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    return sorted(labels, key=classes.index)


def _named(labels: Sequence[str]) -> str:
    return " + ".join(labels) or "no class"
