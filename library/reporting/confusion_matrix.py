"""The confusion matrix: as a table of counts, or as a picture where classes are many."""

import base64
import io

import numpy as np
from PIL import Image

from library.figures.html import table, text

# More classes than these make a table that nobody can read.
_TABLE = 30
# And more than these a picture of which a screen shows no single place.
_PICTURE = 1000
_PAIRS = 12


def confusion_section(cells, classes):
    """Yield the HTML for int (cells, 3): true class, guessed class, images, as confusion_cells."""
    if len(classes) <= _PICTURE:
        yield '<p class="soft">Rows are what images are, columns what they were taken for.</p>'
    yield '<div class="pair">'
    if len(classes) <= _PICTURE:
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        matrix[cells[:, 0], cells[:, 1]] = cells[:, 2]
        yield _table(matrix, classes) if len(classes) <= _TABLE else _picture(matrix)
    pairs = confused_pairs(cells)
    if pairs:
        rows = [
            (text(classes[true]), text(classes[guess]), f"{count:,}", f"{share:.1%}")
            for true, guess, count, share in pairs[:_PAIRS]
        ]
        yield table(("is", "taken for", "images", "of the class"), rows, "pairs")
    yield "</div>"


def confused_pairs(cells):
    """Give (true, guess, images, share of the true class's) of each mistake, the most first."""
    totals = np.bincount(cells[:, 0], weights=cells[:, 2])
    wrong = cells[cells[:, 0] != cells[:, 1]]
    wrong = wrong[np.argsort(-wrong[:, 2], kind="stable")]
    return [(true, guess, images, images / totals[true]) for true, guess, images in wrong.tolist()]


def _table(matrix, classes):
    shares = _shares(matrix)
    head = "".join(f"<th>{text(each)}</th>" for each in classes)
    rows = []
    for number, name in enumerate(classes):
        cells = "".join(
            _cell(matrix[number, other], shares[number, other], number == other)
            for other in range(len(classes))
        )
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>\n')
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(count, share, is_right):
    color = "var(--good)" if is_right else "var(--bad)"
    # Small shares are to be seen too.
    alpha = 0 if not count else 0.12 + 0.6 * share
    words = f"{count:,}" if count else '<span class="soft">·</span>'
    return f'<td style="background:rgb({color} / {alpha:.2f})">{words}</td>'


def _picture(matrix):
    """Return a picture of one pixel a cell: green and red, as strong as the share of the row."""
    shares = _shares(matrix)
    pixels = np.zeros((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(len(matrix))[..., np.newaxis], (42, 150, 128), (214, 84, 64))
    strength = np.where(matrix > 0, 0.2 + 0.8 * np.sqrt(shares), 0.06)
    pixels[..., 3] = (255 * strength).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    return (
        '<img class="pixelated heat" alt="Confusion matrix as a picture" '
        f'src="data:image/png;base64,{encoded}">'
    )


def _shares(matrix):
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
