"""report.html: what one network does with one split, as a page that needs no other file."""

from dataclasses import dataclass

from library.evaluation.confusion import confusion_cells
from library.evaluation.evaluate import EvaluationResult
from library.evaluation.table import number, overall_rows, words_of
from library.figures.html import file_name, folded, meter, page, table, text, tile
from library.figures.training_curves import draw_curves
from library.files import write_file
from library.messages import counted_classes
from library.reporting.confusion_matrix import confusion_section
from library.reporting.environment import describe_environment
from library.reporting.image_tags import thumbnail
from library.reporting.reliability_diagram import reliability_diagram

# So many mistakes are shown, so large a page is never.
MISTAKES = 48
_COLUMNS = ("f1", "precision", "recall", "roc_auc", "pr_auc")
_HALVES = (
    " These are the very images that it was fitted on: so both figures come from halves of them, "
    "each with the temperature of the other half."
)


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    `folder` is the network's and its epoch, or each network's; `name` the split's. `rows` are the
    history's, dicts as in history.csv; `settings` (key, value, where from) by file; `splits`
    Manifests or the like, the judged one first; `scope` words about what was measured, and how.
    """

    folder: str
    name: str
    classes: tuple
    metrics: dict
    network: str
    settings: dict
    splits: tuple
    rows: list
    scope: tuple = ()


def write_report(path, subject, judgment, images):
    """Write the page. `images` are the pixels of judgment.worst_mistakes(MISTAKES)."""
    write_file(path, make_report(subject, judgment, images))


def make_report(subject: Subject, judgment: EvaluationResult, images):
    """Return the page as a str."""
    measures = judgment.measures
    # Where an image has several classes, the accuracy is that of single answers.
    right = measures.get("exact_match", measures["accuracy"])
    about = f"{subject.folder} · {subject.network}"
    parts = [
        f"<h1>{right:.1%} right on {text(subject.name)}</h1>",
        f'<p class="soft">{text(about)}</p>',
        *([f"<p>Measured: {text('; '.join(subject.scope))}.</p>"] if subject.scope else []),
        _tiles(subject, judgment),
    ]
    sections = (
        ("How training went", _curves(subject)),
        ("All measures", _overall(measures)),
        ("Classes", _classes(subject, measures)),
        ("Confusion matrix", _confusion(subject, judgment.predictions)),
        ("Worst mistakes", _mistakes(subject, judgment, images)),
        ("Calibration", _calibration(measures)),
        ("Data", _data(subject)),
        ("Settings of the training", _settings(subject)),
        ("Environment", [table(("", ""), [*map(_escaped, describe_environment())], "words")]),
    )
    for heading, section in sections:
        content = "\n".join(section)
        if content:
            parts.append(f"<section><h2>{heading}</h2>{content}</section>")
    return page(f"{subject.name} · {subject.folder}", *parts)


def _tiles(subject, judgment):
    measures = judgment.measures
    wanted = ("exact_match", "accuracy", "macro_f1", "macro_roc_auc", "loss", "ece")
    tiles = [
        tile("images", f"{len(judgment.predictions):,}", counted_classes(len(subject.classes)))
    ]
    for name in wanted:
        if name in measures:
            between = measures["intervals"].get(name)
            tiles.append(tile(words_of(name), number(measures[name]), _between(between)))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _curves(subject):
    if subject.rows:
        yield '<div class="pair">'
        for name in ("loss", "accuracy"):
            best = subject.metrics.get("epoch")
            svg = draw_curves(subject.rows, best, (name,), (4.6, 3.3)).decode()
            # What comes before the drawing itself is for files.
            yield f"<figure>{svg[svg.index('<svg') :]}</figure>"
        yield "</div>"


def _overall(measures):
    intervals = f"{measures['confidence']:.0%} interval"
    rows = [
        (text(words), number(value), f'<span class="between">{_between(between)}</span>')
        for words, value, between in overall_rows(measures)
    ]
    yield table(("measure", "value", intervals), rows)
    if measures["bootstrap_samples"]:
        yield (
            f'<p class="soft">Intervals: percentiles of {measures["bootstrap_samples"]:,} '
            "bootstrap resamples of the images, reversed for the calibration error, to which "
            "chance adds. Macro: each class counts the same; weighted: as many times as it has "
            "images.</p>"
        )


def _classes(subject, measures):
    if measures["absent"]:
        shown = ", ".join(measures["absent"][:20])
        more = f" and {len(measures['absent']) - 20:,} more" if measures["absent"][20:] else ""
        yield f"<p>Not in this split, so not measured: {text(shown)}{more}.</p>"
    others = [each for each in subject.splits if each.name != subject.name]
    head = ["class", "images", "", *map(words_of, _COLUMNS), "F1 interval"]
    head += [f"in {each.name}" for each in others]
    rows = []
    for label, (name, row) in enumerate(measures["classes"].items()):
        between = row.get("intervals", {}).get("f1")
        rows.append(
            (
                text(name),
                f"{row['images']:,}",
                meter(row["f1"]),
                *(number(row[each]) for each in _COLUMNS),
                f'<span class="between">{_between(between)}</span>',
                *(f"{each.class_counts[label]:,}" for each in others),
            )
        )
    yield table(head, rows, "classes")


def _confusion(subject, found):
    if not found.multi_label:
        cells = confusion_cells(found.labels, found.classes, len(subject.classes))
        yield from confusion_section(cells, subject.classes)


def _mistakes(subject, judgment, images):
    rows = judgment.worst_mistakes(MISTAKES)
    if not len(rows):
        yield "<p>None: every guess is right.</p>"
        return
    yield (
        '<p class="soft">The wrong guesses with the highest loss, as the network saw them: '
        '<span class="wrong">what it took them for</span>, '
        '<span class="right">what they are</span>, and how likely it held each.</p>'
    )
    yield '<div class="cards">'
    for row, image in zip(rows, images, strict=True):
        wrong, right = _answers(subject.classes, judgment.predictions, row)
        yield (
            f'<figure>{thumbnail(image)}<span class="wrong">{wrong}</span><br>'
            f'<span class="right">{right}</span>'
            f"<figcaption>{file_name(judgment.predictions.names[row])}</figcaption></figure>"
        )
    yield "</div>"


def _answers(classes, found, row):
    """Give (what it was taken for, what it is) as HTML, each class with its probability."""
    if found.multi_label:
        guessed, true = found.scores[row] > 0, found.labels[row] > 0.5
    else:
        guessed = range(len(classes)) == found.classes[row]
        true = range(len(classes)) == found.labels[row]
    return tuple(
        ", ".join(
            f"{text(classes[n])} {found.probabilities[row, n]:.1%}"
            for n in range(len(classes))
            if each[n]
        )
        or "none"
        for each in (guessed, true)
    )


def _calibration(measures):
    if not measures["reliability"]:
        return
    yield '<div class="pair"><figure>'
    yield reliability_diagram(measures["reliability"])
    yield "</figure><div>"
    yield (
        "<p>Where probabilities mean what they say, the blue bars reach the red marks: of guesses "
        "that are 80 % sure, 80 % are right. Bars below their marks are too sure.</p>"
    )
    yield f"<p>Expected calibration error: <b>{number(measures['ece'])}</b>.</p>"
    if measures.get("temperature") is not None:
        halves = _HALVES if measures["cross_fitted"] else ""
        yield (
            f"<p>With the temperature <b>{measures['temperature']:.3f}</b>, fitted on validation "
            f"and dividing the scores, it becomes {number(measures['calibrated_ece'])}, and the "
            f"loss {number(measures['calibrated_loss'])}.{halves}</p>"
        )
    yield "</div></div>"


def _data(subject):
    rows = [
        (
            text(each.name),
            f"{each.examples:,}",
            f"{min(each.class_counts):,} to {max(each.class_counts):,}",
            "-" if each.rejected_count is None else f"{each.rejected_count:,}",
        )
        for each in subject.splits
    ]
    yield table(("split", "images", "in a class", "left out by conversion"), rows)


def _settings(subject):
    """Yield what was chosen, and folded away what was left at its default."""
    for name, rows in subject.settings.items():
        chosen = [row for row in rows if not row[2].startswith("default")]
        head = (name, "value", "from")
        yield table(head, [*map(_escaped, chosen)], "words")
        rest = [_escaped(row) for row in rows if row not in chosen]
        yield folded(f"{len(rest)} more, at their defaults", table(head, rest, "words"))


def _escaped(cells):
    return tuple(map(text, cells))


def _between(interval):
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
