"""A network as an SVG: one box for each block, from the pixels to the scores."""

from html import escape
from math import log10

_WIDTH, _HEIGHT, _GAP = 360, 34, 14
_LEAST = 40
_TRAINED, _FROZEN = "#2a9d8f", "#8d99ae"


def draw_network(description, title):
    """Return the SVG text of a Description (library/describing/network_summary.py).

    A box is as wide as its block has parameters, on a logarithmic scale.
    """
    blocks = {}
    for row in description.rows:
        blocks.setdefault(row.block, []).append(row)
    largest = max(sum(row.parameters for row in rows) for rows in blocks.values())
    boxes = [_box(n, rows, largest) for n, rows in enumerate(blocks.values())]
    height = 48 + len(boxes) * (_HEIGHT + _GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * _WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="16" y="26" font-size="15">{escape(title)}</text>',
            *_legend(),
            *boxes,
            "</svg>\n",
        ]
    )


def _box(number, rows, largest):
    parameters = sum(row.parameters for row in rows)
    width = round(_LEAST + (_WIDTH - _LEAST) * log10(parameters + 1) / log10(largest + 1))
    top = 44 + number * (_HEIGHT + _GAP)
    color = _TRAINED if any(row.is_trained for row in rows) else _FROZEN
    first, last = rows[0].name, rows[-1].name
    name = first if first == last else f"{first} … {last.split('/')[-1]}"
    words = f"{parameters:,} parameters" + (f" → {rows[-1].output}" if rows[-1].output else "")
    middle = top + _HEIGHT / 2
    arrow = f'<path d="M36 {top - _GAP} v{_GAP}" stroke="#444" />' if number else ""
    return (
        f'{arrow}<rect x="16" y="{top}" width="{width}" height="{_HEIGHT}" rx="5" fill="{color}"/>'
        f'<text x="{width + 28}" y="{middle - 3}">{escape(name)}</text>'
        f'<text x="{width + 28}" y="{middle + 12}" fill="#555">{escape(words)}</text>'
    )


def _legend():
    for right, color, word in ((180, _TRAINED, "trained"), (90, _FROZEN, "frozen")):
        left = 2 * _WIDTH - right
        yield f'<rect x="{left}" y="16" width="12" height="12" rx="3" fill="{color}"/>'
        yield f'<text x="{left + 18}" y="26">{word}</text>'
