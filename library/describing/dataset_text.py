"""What an inspection found, as text and as the tables that the page shows too."""

import numpy as np

from library.errors import printable

_SHOWN = 10
_EDGES = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096)
_ASPECTS = (0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2.0)


def text(inspection):
    """Return all findings, as lines of text."""
    lines = [*_counts(inspection), ""]
    lines += _histogram("longer edge", size_histogram(inspection))
    lines += _histogram("width : height", aspect_histogram(inspection))
    for heading, groups in duplicate_lists(inspection):
        lines.append(f"{heading}: {len(groups):,}")
        lines += [f"  {group_text(inspection, group)}" for group in groups[:_SHOWN]]
        if len(groups) > _SHOWN:
            lines.append(f"  … and {len(groups) - _SHOWN:,} more")
    lines.append(f"files that can't be used: {len(inspection.unusable):,}")
    for split, name, reason in inspection.unusable[:_SHOWN]:
        lines.append(f"  {printable(f'{split}/{name}')} {printable(reason)}")
    return "\n".join(lines)


def duplicate_lists(inspection):
    """Give (heading, groups): the worst first, each group in the first list that it belongs to."""
    headings = (
        "the same file in several splits (a leak)",
        "the same file with different labels",
        "the same file twice",
        "look alike in several splits (perhaps a leak)",
        "look alike with different labels",
        "look alike",
    )
    lists = {heading: [] for heading in headings}
    for first, groups in ((0, inspection.equal), (3, inspection.alike)):
        for group in groups:
            crosses, disagrees = inspection.crosses_splits(group), inspection.labels_disagree(group)
            lists[headings[first + (0 if crosses else 1 if disagrees else 2)]].append(group)
    return list(lists.items())


def group_text(inspection, group, most=6):
    """Return the names of a group's files."""
    names = [printable(f"{inspection.split(n)}/{inspection.file(n).name}") for n in group[:most]]
    return " = ".join(names) + (f" = … ({len(group)} in all)" if len(group) > most else "")


def imbalance(counts):
    """Return the largest class's count over the smallest's, as words."""
    most, least = max(counts.values()), min(counts.values())
    largest = max(counts, key=counts.get)
    smallest = min(counts, key=counts.get)
    if least == 0:
        return f"{printable(smallest)!r} has none"
    if most == least:
        return "all classes are equally large"
    return f"{printable(largest)!r} is {most / least:.1f} times as large as {printable(smallest)!r}"


def size_histogram(inspection):
    """Give [(longer edge in words, images), …]."""
    return _binned(inspection.facts[:, 2:4].max(axis=1, initial=0), _EDGES, "px")


def aspect_histogram(inspection):
    """Give [(width over height in words, images), …]."""
    width, height = inspection.facts[:, 2], inspection.facts[:, 3]
    return _binned(width / np.maximum(height, 1), _ASPECTS, "")


def _binned(values, edges, unit):
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    unit = f" {unit}" if unit else ""
    words = [f"up to {edge:g}{unit}" for edge in edges] + [f"above {edges[-1]:g}{unit}"]
    rows = list(zip(words, counts.tolist(), strict=True))
    # From the first bin that holds something to the last.
    full = np.flatnonzero(counts)
    return rows[full[0] : full[-1] + 1] if len(full) else []


def _counts(inspection):
    splits = list(inspection.counts)
    width = max(map(len, (*map(printable, inspection.classes), "images")), default=6)
    yield " ".join([" " * width, *(f"{split:>10}" for split in splits)])
    for label in inspection.classes:
        numbers = (f"{inspection.counts[split][label]:>10,}" for split in splits)
        yield " ".join([f"{printable(label):<{width}}", *numbers])
    totals = (f"{inspection.images(split):>10,}" for split in splits)
    yield " ".join([f"{'images':<{width}}", *totals])
    for split in splits:
        yield f"{split}: {imbalance(inspection.counts[split])}"


def _histogram(heading, rows):
    most = max((count for _, count in rows), default=1)
    yield heading
    for words, count in rows:
        yield f"  {words:<14} {count:>9,}  {'█' * round(40 * count / most)}"
