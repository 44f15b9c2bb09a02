"""The report: what one network does with one split, as a page that needs no other file."""

import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import tensorflow as tf

from library.dataset.sources.base import TRAINING
from library.evaluation.evaluate import (
    EVALUATION_FOLDER,
    EvaluationResult,
    describe_scope,
    summarize,
    warn_on_error,
    write_results,
)
from library.evaluation.image_table import IMAGE_TABLE
from library.evaluation.table import (
    format_interval,
    format_number,
    metric_label,
    overall_metrics,
)
from library.figures.html import inline_svg, link_pages, read_script, render
from library.figures.training_curves import curve_names, draw_curves
from library.files import SEAL, parse_json, sha256_of, write_file
from library.inputs.examples import Split
from library.messages import counted_classes
from library.reporting.charts import make_confusion_chart
from library.reporting.mistakes import (
    SEPARATOR,
    make_cards,
    make_mistake_table,
    read_images,
    sample_correct,
    worst_mistakes,
)
from library.reporting.runs import REPORT, SETTINGS_FILES, read_history, read_settings_file
from library.reporting.threshold_curves import make_threshold_curves
from library.saving.snapshots import Snapshot, read_snapshot

logger = logging.getLogger(__name__)

_TILES = ("exact_match", "accuracy", "macro_f1", "macro_roc_auc", "loss", "ece")
_CLASS_COLUMNS = ("f1", "precision", "recall", "roc_auc", "pr_auc")
_PACKAGES = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class TrainingSplit:
    """The training split as a snapshot remembers it."""

    examples: int
    class_counts: tuple[int, ...]
    name: str = TRAINING
    rejected_count: int | None = None


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title: The snapshot's folder and epoch, or those of each member of an ensemble.
        split: Name of the evaluated split.
        classes: Class names in label order.
        network: Name and size of the network.
        result: What was found.
        mistake_images: Pixels of the worst mistakes: uint8 (height, width, 1 or 3) each.
        correct_images: The same of some correct predictions.
        splits: The evaluated split, and others to compare its classes with.
        scope: What the metrics are of, if not of one network and the whole split.
        history: Rows of history.csv.
        epoch: The snapshot's epoch.
        settings: File name → (key, value, source) of each setting.
        sources: A hash of what the page is made from: see `hash_sources`.
        image_table: Where the table of all images is, seen from the page.
        slices: Metrics of slices, as the summary has them.
        corruptions: Accuracy on corrupted images, as the summary has it.
        corruption_chart: Its chart as an SVG.
    """

    title: str
    split: str
    classes: Sequence[str]
    network: str
    result: EvaluationResult
    mistake_images: Sequence[np.ndarray]
    correct_images: Sequence[np.ndarray]
    splits: Sequence[Split | TrainingSplit]
    scope: Sequence[str] = ()
    history: Sequence[dict] = ()
    epoch: int | None = None
    settings: dict[str, list[tuple[str, str, str]]] | None = None
    sources: str = ""
    image_table: str | None = None
    slices: Sequence[dict] = ()
    corruptions: dict | None = None
    corruption_chart: bytes | None = None


def write_training_report(
    run_dir: Path,
    snapshot_dir: Path,
    splits: Sequence[Split],
    evaluate_snapshot: Callable[[Snapshot], EvaluationResult],
    data_dir: str | None = None,
) -> None:
    """Write a run's report about its best snapshot, unless it is there already.

    An error is logged as a warning, because the training itself is done.

    Args:
        run_dir: Gets the page and, in its folder `evaluation`, the metrics as JSON.
        snapshot_dir: The best snapshot.
        splits: The evaluated split and the training split.
        evaluate_snapshot: Function that evaluates a snapshot on the first of the splits.
        data_dir: Where the splits lie.
    """
    page, summary_path = run_dir / REPORT, run_dir / EVALUATION_FOLDER / f"{splits[0].name}.json"
    with warn_on_error(page):
        sha256, fingerprint = sha256_of(snapshot_dir / SEAL), splits[0].fingerprint
        sources = hash_sources(sha256, fingerprint, _find_history(snapshot_dir, run_dir))
        if is_current(page, sources) and is_about(summary_path, sha256, fingerprint):
            return
        result = evaluate_snapshot(read_snapshot(snapshot_dir))
        summary = summarize(result, splits[0], data_dir=data_dir)
        write_results(summary_path, result, summary)
        write_report(page, result, summary, splits, run_dir)
        link_pages(run_dir)


def write_report(
    page: Path,
    result: EvaluationResult,
    summary: dict,
    splits: Sequence[Split],
    run_dir: Path | None = None,
) -> None:
    """Write the page about an evaluation.

    Args:
        page: The file to write.
        result: What was found.
        summary: What `summarize` makes of it.
        splits: The evaluated split first.
        run_dir: Where history and settings are, if not around the snapshot.
    """
    snapshot = result.snapshot
    members = snapshot.members or (snapshot,)
    names = " and ".join(dict.fromkeys(each.network.name for each in members))
    _, *shape = snapshot.network.input_shape
    predictions = result.predictions
    mistakes, correct = worst_mistakes(predictions, result.losses), sample_correct(predictions)
    images = read_images(result.inputs, [*mistakes, *correct])
    report = Report(
        title="; ".join(f"{each.folder}, epoch {each.metrics.get('epoch')}" for each in members),
        split=summary["split"],
        classes=snapshot.classes,
        network=f"{names}: {snapshot.network.count_params():,} parameters, images of "
        f"{' x '.join(map(str, shape))}",
        result=result,
        mistake_images=images[: len(mistakes)],
        correct_images=images[len(mistakes) :],
        splits=splits,
        scope=tuple(describe_scope(summary)),
        epoch=snapshot.metrics.get("epoch"),
        sources=hash_sources(snapshot.sha256, summary["data"]["fingerprint"], None),
        image_table=_find_image_table(page, summary["split"]),
        slices=summary.get("slices", ()),
        corruptions=summary.get("corruptions"),
        corruption_chart=_read_chart(page) if "corruptions" in summary else None,
    )
    # The history and settings of a run are not those of an ensemble.
    if len(members) == 1:
        folders = _folders_around(snapshot.folder, run_dir)
        files = {name: _find(name, folders) for name in SETTINGS_FILES}
        history = _find_history(snapshot.folder, run_dir)
        report = replace(
            report,
            splits=(*splits, *_training_split(snapshot, splits)),
            history=read_history(history),
            sources=hash_sources(snapshot.sha256, summary["data"]["fingerprint"], history),
            settings={name: read_settings_file(path) for name, path in files.items() if path},
        )
    write_file(page, render_report(report))
    logger.info("HTML report: %s", page)


def render_report(report: Report) -> str:
    """Return the page."""
    metrics, predictions = report.result.metrics, report.result.predictions
    losses = report.result.losses
    others = [each for each in report.splits if each.name != report.split]
    chart = None if predictions.multi_label else make_confusion_chart(predictions, report.classes)
    answer, curves = make_threshold_curves(predictions, report.classes)
    shown = [answer, *curves] if answer else curves

    def cards(rows: np.ndarray, images: Sequence[np.ndarray]) -> list[dict]:
        return [*make_cards(predictions, report.classes, rows, images)]

    return render(
        "library.reporting",
        "report.html",
        script=read_script("library.figures", "tables.js")
        + read_script("library.reporting", "report.js"),
        report=report,
        metrics=metrics,
        # Multi-label accuracy is that of single classes, not of images.
        accuracy=metrics.get("exact_match", metrics["accuracy"]),
        tiles=list(_tiles(report)),
        curves=list(_curves(report)),
        interval_heading=f"{100 * metrics['confidence']:.0f} % interval",
        overall=[
            (label, format_number(value), format_interval(interval))
            for label, value, interval in overall_metrics(metrics)
        ],
        class_head=(
            *("class", "images", "", *map(metric_label, _CLASS_COLUMNS), "F1 interval"),
            *(f"in {each.name}" for each in others),
        ),
        class_rows=list(_class_rows(metrics, others)),
        interval_count=sum("intervals" in row for row in metrics["classes"].values()),
        confusion=chart,
        thresholds=[{**asdict(each), "isAnswer": each is answer} for each in shown],
        hidden_classes=len(report.classes) - len(metrics["absent"]) - len(curves),
        mistake_count=int(np.count_nonzero(~predictions.correct)),
        mistake_table=make_mistake_table(predictions, losses, report.classes),
        separator=SEPARATOR,
        chart=inline_svg(report.corruption_chart) if report.corruption_chart else None,
        share="exact_match" if predictions.multi_label else "accuracy",
        interval=format_interval,
        mistakes=cards(worst_mistakes(predictions, losses), report.mistake_images),
        correct=cards(sample_correct(predictions), report.correct_images),
        number=format_number,
        data_rows=[_split_row(each) for each in report.splits],
        settings={name: _by_default(rows) for name, rows in (report.settings or {}).items()},
        environment=describe_environment(),
    )


def describe_environment() -> list[tuple[str, str]]:
    """Return (name, value) of what is needed to repeat a result: versions, devices, machine."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(each) for each in gpus]
    return [
        ("written", datetime.now().astimezone().isoformat(" ", "seconds")),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in _PACKAGES),
        ("system", platform.platform()),
        ("processor cores", str(os.cpu_count())),
        ("devices", ", ".join(each.get("device_name", "GPU") for each in details) or "CPU"),
    ]


def hash_sources(snapshot_sha256: str, split_fingerprint: str | None, history: Path | None) -> str:
    """Return a hash of what a page is made from; times would not do, because clocks go wrong."""
    rows = sha256_of(history) if history else ""
    return hashlib.sha256(f"{snapshot_sha256} {split_fingerprint} {rows}".encode()).hexdigest()


def is_current(page: Path, sources: str) -> bool:
    """Return whether a page exists and is made from the sources with this hash."""
    return page.is_file() and f'content="{sources}"' in page.read_text(encoding="utf-8")


def is_about(path: Path, snapshot_sha256: str, split_fingerprint: str | None) -> bool:
    """Return whether the JSON of an evaluation exists and is about this snapshot and this split."""
    try:
        summary = parse_json(path.read_bytes())
        found = summary["snapshot_sha256"], summary["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == (snapshot_sha256, split_fingerprint)


def _tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield (label, number, note)."""
    metrics = report.result.metrics
    images = f"{len(report.result.predictions):,}"
    yield "images", images, counted_classes(len(report.classes))
    for name in _TILES:
        if name in metrics:
            interval = format_interval(metrics["intervals"].get(name))
            yield metric_label(name), format_number(metrics[name]), interval


def _curves(report: Report) -> Iterator[str]:
    """Yield an SVG element for each training curve."""
    if report.history:
        for name in curve_names(report.history):
            yield inline_svg(draw_curves(report.history, report.epoch, (name,), (4.6, 3.3)))


def _class_rows(metrics: dict, others: Sequence[Split | TrainingSplit]) -> Iterator[dict]:
    for label, (name, row) in enumerate(metrics["classes"].items()):
        yield {
            "name": name,
            "images": f"{row['images']:,}",
            "f1": row["f1"],
            "metrics": [format_number(row[column]) for column in _CLASS_COLUMNS],
            "interval": format_interval(row.get("intervals", {}).get("f1")),
            "others": [f"{each.class_counts[label]:,}" for each in others],
        }


def _split_row(split: Split | TrainingSplit) -> tuple[str, str, str, str]:
    return (
        split.name,
        f"{split.examples:,}",
        f"{min(split.class_counts):,} to {max(split.class_counts):,}",
        "-" if split.rejected_count is None else f"{split.rejected_count:,}",
    )


def _by_default(rows: list[tuple[str, str, str]]) -> tuple[list, list]:
    """Return the settings that were chosen, and those left at their defaults."""
    chosen = [row for row in rows if not row[2].startswith("default")]
    return chosen, [row for row in rows if row not in chosen]


def _training_split(snapshot: Snapshot, splits: Sequence[Split]) -> list[TrainingSplit]:
    """Return the training split as the snapshot remembers it, unless it is among the splits."""
    counts = snapshot.data.get("class_counts", {})
    if TRAINING in [each.name for each in splits] or set(counts) != set(snapshot.classes):
        return []
    ordered = tuple(counts[each] for each in snapshot.classes)
    return [TrainingSplit(snapshot.data["examples"], ordered)]


def _folders_around(snapshot_dir: Path, run_dir: Path | None) -> list[Path]:
    """Return where the history and the settings of a snapshot's run may be."""
    # A snapshot lies in its run's folder, a checkpoint one level deeper, or both elsewhere. Folders
    # further up may hold the settings of something else.
    return [snapshot_dir, *snapshot_dir.parents[:2], *([run_dir] if run_dir else [])]


def _find_history(snapshot_dir: Path, run_dir: Path | None) -> Path | None:
    return _find("history.csv", _folders_around(snapshot_dir, run_dir))


def _find_image_table(page: Path, split: str) -> str | None:
    """Return where the table of images is, seen from its page: beside it, or in a folder."""
    name = f"{split}{IMAGE_TABLE}"
    paths = (page.with_suffix(IMAGE_TABLE), page.parent / EVALUATION_FOLDER / name)
    found = (each.relative_to(page.parent).as_posix() for each in paths if each.is_file())
    return next(found, None)


def _read_chart(page: Path) -> bytes | None:
    """Return the chart of corruptions beside a page, if it could be written."""
    path = page.with_suffix(".corruptions.svg")
    return path.read_bytes() if path.is_file() else None


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    return next((each / name for each in folders if (each / name).is_file()), None)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed under this name"
