"""The reliability diagram: how often guesses are right, against how sure they were."""

from library.messages import counted

_SIZE, _LEFT, _TOP, _FOOT = 300, 44, 10, 98
_COUNTS = 44  # the height of the bars below, which tell how many guesses there are


def reliability_diagram(rows):
    """Return an SVG for the rows of library/evaluation/calibration.py's Bins."""
    width, height = _LEFT + _SIZE + 12, _TOP + _SIZE + _FOOT
    most = max(row["guesses"] for row in rows)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Reliability diagram">',
            *_grid(),
            *(_bar(row, most) for row in rows),
            f'<path d="M{_x(0)} {_y(0)} L{_x(1)} {_y(1)}" stroke="currentColor" '
            'stroke-dasharray="4 4" opacity=".6"/>',
            f'<text x="{_x(0.5)}" y="{height - 8}" text-anchor="middle">confidence '
            "(below: how many guesses)</text>",
            f'<text transform="translate(11 {_y(0.5)}) rotate(-90)" text-anchor="middle">'
            "share that is right</text>",
            "</svg>",
        ]
    )


def _grid():
    for tick in (0, 0.25, 0.5, 0.75, 1):
        yield (
            f'<path d="M{_x(0)} {_y(tick)} H{_x(1)} M{_x(tick)} {_y(0)} V{_y(1)}" '
            'stroke="currentColor" opacity=".15"/>'
            f'<text x="{_x(0) - 5}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>'
            f'<text x="{_x(tick)}" y="{_y(0) + 15}" text-anchor="middle">{tick:g}</text>'
        )


def _bar(row, most):
    """Return a bin's accuracy as a bar, its mean confidence as a mark, its guesses as bar below."""
    left, width = _x(row["from"]) + 1, _SIZE * (row["to"] - row["from"]) - 2
    share = max(1.0, _COUNTS * row["guesses"] / most)
    words = (
        f"{counted(row['guesses'], 'guess', 'guesses')} from {row['from']:.0%} to {row['to']:.0%}: "
        f"{row['accuracy']:.1%} right, {row['confidence']:.1%} sure"
    )
    return (
        f"<g><title>{words}</title>"
        f'<rect x="{left:.1f}" y="{_y(row["accuracy"]):.1f}" width="{width:.1f}" '
        f'height="{_SIZE * row["accuracy"]:.1f}" fill="rgb(var(--bar))" opacity=".8"/>'
        f'<path d="M{left:.1f} {_y(row["confidence"]):.1f} h{width:.1f}" '
        'stroke="rgb(var(--bad))" stroke-width="2.5"/>'
        f'<rect x="{left:.1f}" y="{_y(0) + 24}" width="{width:.1f}" height="{share:.1f}" '
        'fill="currentColor" opacity=".35"/></g>'
    )


def _x(value):
    return _LEFT + _SIZE * value


def _y(value):
    return _TOP + _SIZE * (1 - value)
