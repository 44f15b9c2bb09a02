"""Preview a batch of training images as the network sees them: `preview.png`, and TensorBoard."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from library.figures.contact_sheet import draw_batch
from library.files import write_file
from library.inputs.interfaces import TrainingBatches


def write_preview(
    training: TrainingBatches, classes: Sequence[str], run_dir: str | Path, max_images: int = 64
) -> Path:
    """Draw the first batch of epoch 0.

    Args:
        training: The inputs.
        classes: The class names.
        run_dir: Folder of the PNG; TensorBoard's files are below it.
        max_images: How many images of the batch to draw at most.

    Returns:
        The path of the PNG.
    """
    images, labels = (each.numpy()[:max_images] for each in next(iter(training.batches(0))))
    sheet = draw_batch(images, labels, classes)
    path = Path(run_dir) / "preview.png"
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_file(path, content.getvalue())
    with tf.summary.create_file_writer(str(path.parent / "logs")).as_default():
        tf.summary.image("images/preview", np.asarray(sheet)[np.newaxis], step=0)
    return path
