"""Many small images with captions on one sheet, for the eye."""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from library.files import write_file

_MARGIN = 4
_LEAST_EDGE = 96


def draw_sheet(images, captions, columns=8, least_edge=_LEAST_EDGE):
    """Return a Pillow image: uint8 images (height, width, 1 or 3), all of one size, with captions.

    A caption may have several lines. Small images are enlarged by a whole number, so that each of
    their pixels can be seen.
    """
    height, width = images[0].shape[:2]
    times = max(1, -(-least_edge // min(height, width)))
    # To be read on a sheet shown at half its size, too.
    letters = max(11, width * times // 14)
    font, line = ImageFont.load_default(letters), letters + 3
    head = line * max(each.count("\n") + 1 for each in captions)
    cell = (width * times + _MARGIN, height * times + head + _MARGIN)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = _MARGIN + number % columns * cell[0]
        top = _MARGIN + number // columns * cell[1]
        sheet.paste(_enlarged(image, times), (left, top + head))
        # The last line just above the image.
        for row, words in enumerate(reversed(caption.split("\n")), start=1):
            place = left, top + head - row * line
            draw.text(place, _fitted(words, width * times, font), "black", font)
    return sheet


def caption(label, classes):
    """Return the words for a label: a class id, several classes, or shares (the largest two).

    Each share is a line; one below half a percent has none.
    """
    if np.ndim(label) == 0:
        return classes[int(label)]
    if set(label) <= {0, 1}:
        return " + ".join(classes[each] for each in np.flatnonzero(label)) or "none"
    largest = np.argsort(-label, kind="stable")[:2]
    shares = [(classes[each], round(100 * label[each])) for each in largest]
    shares = [(name, share) for name, share in shares if share]
    if len(shares) == 1:
        return shares[0][0]
    return "\n".join(f"{share:.0f}% {name}" for name, share in shares)


def draw_batch(images, labels, classes):
    """Return the sheet of a batch: uint8 (batch, height, width, 1 or 3), and its labels."""
    return draw_sheet(images, [caption(label, classes) for label in labels])


def write_preview(training, classes, run_dir, largest=64):
    """Draw the first batch of TrainingInputs. Give the PNG's path; TensorBoard shows it as well."""
    images, labels = (each.numpy()[:largest] for each in next(iter(training.batches(0))))
    sheet = draw_batch(images, labels, classes)
    path = Path(run_dir) / "preview.png"
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_file(path, content.getvalue())
    with tf.summary.create_file_writer(str(path.parent / "logs" / "preview")).as_default():
        tf.summary.image("images/preview", np.asarray(sheet)[np.newaxis], step=0)
    return path


def _enlarged(image, times):
    pixels = np.repeat(image, 3 // image.shape[2], axis=2)
    return Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))


def _fitted(text, width, font):
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
