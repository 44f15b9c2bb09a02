"""What an inspection found, as one HTML page that needs no other file: thumbnails are inside."""

import base64
from dataclasses import replace

from library.dataset.images import UnusableImageError, convert_image
from library.describing.dataset_summary import (
    aspect_histogram,
    duplicate_lists,
    imbalance,
    size_histogram,
)
from library.figures.html import file_name, text
from library.messages import counted, counted_classes

_EDGE = 96
# So many are shown, or a page of many duplicates would be too large to open.
_GROUPS = 30
_IN_A_GROUP = 7
_OF_A_CLASS = 7
_CLASSES = 100
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; max-width: 42rem }
td, th { padding: .2rem .8rem .2rem 0; text-align: right }
td:first-child, th:first-child { text-align: left }
tr + tr td { border-top: 1px solid #8883 }
.bar { display: inline-block; height: .8em; background: #4878b0; vertical-align: middle }
td.bars { text-align: left; width: 55%; padding-right: 0 }
.group { display: flex; flex-wrap: wrap; gap: .8rem; padding: .6rem 0; border-top: 1px solid #8883 }
figure { margin: 0; width: 8.5rem } figcaption { font-size: .75rem; overflow-wrap: anywhere }
img { display: block; max-width: 96px; max-height: 96px; background: #8882; margin-bottom: .2rem }
img.small { width: auto; height: 96px; image-rendering: pixelated }
td.why { text-align: left } td:first-child, td.why { overflow-wrap: anywhere; min-width: 6rem }
@media (max-width: 34rem) { td.bars { width: 20% } }
.none { color: #777 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } }
"""


def page(inspection, options):
    """Return the page, as a str."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>The images</title><style>{_STYLE}</style><h1>The images</h1>",
        *_counts(inspection),
        *_histogram("Longer edge", size_histogram(inspection)),
        *_histogram("Width : height", aspect_histogram(inspection)),
        *_samples(inspection, options),
        *_duplicates(inspection, options),
        *_unusable(inspection),
        "</html>\n",
    ]
    return "\n".join(parts)


def _counts(inspection):
    splits = list(inspection.counts)
    yield "<h2>Classes</h2><table><tr><th>class</th>"
    yield "".join(f"<th>{text(split)}</th>" for split in splits) + "<th></th></tr>"
    most = max((max(each.values(), default=1) for each in inspection.counts.values()), default=1)
    for label in inspection.classes:
        numbers = [inspection.counts[split][label] for split in splits]
        cells = "".join(f"<td>{number:,}</td>" for number in numbers)
        yield f"<tr><td>{text(label)}</td>{cells}{_bar(numbers[0], most)}</tr>"
    totals = "".join(f"<td>{inspection.images(each):,}</td>" for each in splits)
    yield f"<tr><td><b>images</b></td>{totals}<td></td></tr></table>"
    for split in splits:
        yield f"<p>{text(split)}: {text(imbalance(inspection.counts[split]))}</p>"


def _histogram(heading, rows):
    most = max((count for _, count in rows), default=1)
    yield f"<h2>{heading}</h2><table>"
    for words, count in rows:
        yield f"<tr><td>{words}</td><td>{count:,}</td>{_bar(count, most)}</tr>"
    yield "</table>"


def _bar(count, most):
    width = 100 * count / max(most, 1)
    return f'<td class=bars><span class=bar style="width: {width:.2f}%"></span></td>'


def _samples(inspection, options):
    """Yield a row of thumbnails for each class."""
    yield "<h2>Some of each class</h2>"
    for label in inspection.classes[:_CLASSES]:
        some = inspection.of_class(label)[:_OF_A_CLASS]
        yield f"<p>{text(label)}</p><div class=group>"
        yield from (_figure(inspection, each, options) for each in some)
        yield "</div>"
    if len(inspection.classes) > _CLASSES:
        yield f"<p class=none>… and {counted_classes(len(inspection.classes) - _CLASSES)} more</p>"


def _duplicates(inspection, options):
    for heading, groups in duplicate_lists(inspection):
        yield f"<h2>{text(heading[0].upper() + heading[1:])}: {len(groups):,}</h2>"
        for group in groups[:_GROUPS]:
            yield "<div class=group>"
            yield from (_figure(inspection, each, options) for each in group[:_IN_A_GROUP])
            if len(group) > _IN_A_GROUP:
                yield f"<p class=none>… and {len(group) - _IN_A_GROUP:,} more</p>"
            yield "</div>"
        if len(groups) > _GROUPS:
            yield f"<p class=none>… and {counted(len(groups) - _GROUPS, 'group')} more</p>"


def _unusable(inspection):
    yield f"<h2>Files that can't be used: {len(inspection.unusable):,}</h2><table>"
    for split, name, reason in inspection.unusable[:1000]:
        yield f"<tr><td>{text(f'{split}/{name}')}</td><td class=why>{text(reason)}</td></tr>"
    yield "</table>"


def _figure(inspection, number, options):
    file = inspection.file(number)
    width, height = inspection.facts[number, 2:4]
    caption = f"{inspection.split(number)}/{file.name}, {width} by {height}"
    picture = _thumbnail(file, options)
    return f"<figure>{picture}<figcaption>{file_name(caption)}</figcaption></figure>"


def _thumbnail(file, options):
    options = replace(options, max_edge=_EDGE, quality=80)
    try:
        jpeg, height, width = convert_image(file.location.read(), options)
    except (UnusableImageError, OSError, ValueError):
        return ""  # It was there a moment ago.
    content = base64.b64encode(jpeg).decode()
    # Enlarged, or nobody would see anything.
    small = " class=small" if max(width, height) < _EDGE / 2 else ""
    source = f"data:image/jpeg;base64,{content}"
    return f'<img{small} width={width} height={height} alt="" src="{source}">'
