"""What evaluation leaves behind: a page for people, and the measures as JSON beside it."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from library.dataset.splits import TRAINING
from library.errors import reason_of
from library.evaluation.evaluate import read_images
from library.files import write_file
from library.logging import report
from library.messages import counted
from library.reporting.report import MISTAKES, Subject, make_report
from library.reporting.runs import SETTINGS_FILES, read_history, read_settings_file

REPORT = "report.html"
EVALUATION = "evaluation"


def results_of(stored, judgment, split, *, data_dir=None, is_own_data=True):
    """Return all that is known about a Snapshot on a split, as a dict for JSON.

    `split` is a Manifest or the like, from `data_dir`; `is_own_data`: whether the run learns from
    there.
    """
    members = stored.members or (stored,)
    return {
        "split": split.name,
        "images": len(judgment.predictions),
        "images_in_split": split.examples,
        **judgment.measures,
        "snapshot": str(stored.folder) if len(members) == 1 else None,
        "epoch": stored.metrics.get("epoch"),
        "parameters": stored.network.count_params(),
        "members": [
            {"snapshot": str(each.folder), "epoch": each.metrics.get("epoch")} for each in members
        ],
        "views": stored.views,
        "data": {"folder": data_dir, "fingerprint": split.fingerprint, "is_own": is_own_data},
    }


def write_evaluation(stem, stored, inputs, judgment, splits, results, *, page=None, run_dir=None):
    """Write `results` as `<stem>.json`, and the page, `<stem>.html` unless `page` names another.

    `splits` are Manifests or the like, the judged one first. `run_dir` is where the run left its
    history and settings, if not around the snapshot.
    """
    stem = Path(stem)
    write_file(stem.with_name(f"{stem.name}.json"), json.dumps(results, indent=1) + "\n")
    page = Path(page or stem.with_name(f"{stem.name}.html"))
    images = read_images(inputs, judgment.worst_mistakes(MISTAKES))
    subject = _subject(stored, splits, run_dir, results)
    write_file(page, make_report(subject, judgment, images))
    report(f"report: {page}")


def describe_scope(results):
    """Yield a few words for each thing that the figures are of, beyond a network and a split."""
    if len(results["members"]) > 1:
        yield f"the mean of {len(results['members'])} networks"
    if results["views"] > 1:
        yield f"the mean of {results['views']} views of each image"
    if results["images"] < results["images_in_split"]:
        yield f"the first {results['images']:,} of {counted(results['images_in_split'], 'image')}"
    if not results["data"]["is_own"]:
        yield f"data from {results['data']['folder']}"


@contextlib.contextmanager
def warn_on_error(what):
    """Turn any error in the block into a warning: nothing trained or measured is lost."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if isinstance(error, OSError) and error.filename:
            reason += f": {error.filename}"
        report(f"warning: {what} could not be written ({reason})")


def is_current(page, *sources):
    """Return whether a page was written after all that it is made of."""
    page, sources = Path(page), [each for each in map(Path, sources) if each.exists()]
    newest = max((each.stat().st_mtime for each in sources), default=0.0)
    return page.exists() and page.stat().st_mtime >= newest


@dataclass(frozen=True)
class Learnt:
    """The training split, as a snapshot remembers it."""

    examples: int
    class_counts: tuple
    name: str = TRAINING
    rejected_count: int | None = None


def _with_training(splits, stored):
    """Return the splits, and the training split too, if the snapshot knows it."""
    counts = stored.data.get("class_counts", {})
    if TRAINING in [each.name for each in splits] or set(counts) != set(stored.classes):
        return splits
    ordered = tuple(counts[each] for each in stored.classes)
    return (*splits, Learnt(stored.data["examples"], ordered))


def _subject(stored, splits, run_dir, results):
    if len(stored.members) > 1:
        # No run's history and settings are theirs all.
        return _about(stored, splits, results, {}, [])
    folder = stored.folder
    # A snapshot lies in its run's folder, a checkpoint one further below; or both lie elsewhere.
    around = [folder, folder.parent, folder.parent.parent, *([Path(run_dir)] if run_dir else [])]
    settings = {
        name: read_settings_file(found)
        for name in SETTINGS_FILES
        if (found := _first(around, name))
    }
    return _about(stored, splits, results, settings, read_history(_first(around, "history.csv")))


def _about(stored, splits, results, settings, rows):
    members = stored.members or (stored,)
    _, *shape = stored.network.input_shape
    names = " and ".join(dict.fromkeys(each.network.name for each in members))
    return Subject(
        folder="; ".join(f"{each.folder}, epoch {each.metrics.get('epoch')}" for each in members),
        name=results["split"],
        classes=stored.classes,
        metrics=stored.metrics,
        network=f"{names}: {stored.network.count_params():,} parameters, images of "
        f"{' by '.join(map(str, shape))}",
        settings=settings,
        splits=_with_training(splits, stored) if len(members) == 1 else splits,
        rows=rows,
        scope=tuple(describe_scope(results)),
    )


def _first(folders, name):
    """Return the first such file; never one above project, where it would be somebody else's."""
    found = [each / name for each in folders if (each / name).is_file()]
    return found[0] if found else None
