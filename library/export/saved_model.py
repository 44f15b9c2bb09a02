"""The SavedModel for TensorFlow Serving: image bytes or pixels in, sorted classes out.

Signatures:
- `serving_default`: `image_bytes`, strings (n,) → `classes`, strings (n, classes), and
  `probabilities`, float32 (n, classes), both sorted by probability, most likely first
- `pixels`: `pixels`, uint8 (n, height, width, channels) → the same

On request both return `embedding` too, float32 (n, size): see library/prediction/embedding.py; and
with a detector `unknown_score`, float32 (n,), and `is_unknown`, bool (n,): whether that is above 0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from library.export.bytes_to_pixels import prepare_bytes
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.unknown_score import UnknownDetector, extend_network
from library.saving.snapshots import Snapshot


class _ServingModule(tf.Module):
    """The network with the operations before and after it."""

    def __init__(
        self, snapshot: Snapshot, embedding: bool, detector: UnknownDetector | None
    ) -> None:
        super().__init__()
        self.network = extend_network(snapshot.network, embedding=embedding, detector=detector)
        self._multi_label = is_multi_label(snapshot.network)
        self._class_names = tf.constant(snapshot.classes)
        self._options = snapshot.image_options
        self._format = snapshot.image_format
        shape = [None, *self._format.shape]
        self.from_pixels = tf.function(
            self._from_pixels,
            input_signature=[tf.TensorSpec(shape, tf.uint8, "pixels")],
            autograph=False,
        )
        self.from_bytes = tf.function(
            self._from_bytes,
            # TensorFlow Serving decodes base64 if an input's name ends in _bytes.
            input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")],
            autograph=False,
        )

    def _from_pixels(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = dict(self.network(tf.cast(pixels, tf.float32), training=False))
        probabilities = to_probabilities(outputs.pop("scores"), multi_label=self._multi_label)
        order = tf.argsort(probabilities, direction="DESCENDING", stable=True)
        if "unknown_score" in outputs:
            outputs["is_unknown"] = outputs["unknown_score"] > 0
        return {
            "classes": tf.gather(self._class_names, order),
            "probabilities": tf.gather(probabilities, order, batch_dims=1),
            **outputs,
        }

    def _from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # Decode on the CPU, whatever device the network runs on.
        with tf.device("/CPU:0"):
            pixels = tf.map_fn(
                lambda encoded: prepare_bytes(encoded, self._format, self._options),
                image_bytes,
                fn_output_signature=tf.TensorSpec(self._format.shape, tf.uint8),
            )
        return self._from_pixels(pixels)


def write_saved_model(
    folder: Path,
    snapshot: Snapshot,
    *,
    embedding: bool = False,
    detector: UnknownDetector | None = None,
) -> None:
    """Write the SavedModel of a snapshot into a folder.

    Args:
        folder: Where to write it.
        snapshot: The snapshot.
        embedding: Whether it returns embeddings.
        detector: What tells unknown images; None: it does not tell them.
    """
    module = _ServingModule(snapshot, embedding, detector)
    signatures = {"serving_default": module.from_bytes, "pixels": module.from_pixels}
    tf.saved_model.save(module, str(folder), signatures=signatures)


class LoadedSavedModel:
    """A SavedModel read from disk, which answers as TensorFlow Serving would."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.signatures = tf.saved_model.load(str(folder)).signatures
        self._ids = {name: number for number, name in enumerate(classes)}

    def from_bytes(self, encoded: list[bytes]) -> np.ndarray:
        """Return float32 probabilities (n, classes), in label order, for encoded images.

        Of an export with a detector, the unknown score follows in a column of its own.
        """
        outputs = self.signatures["serving_default"](image_bytes=tf.constant(encoded))
        return self._in_label_order(outputs)

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return the same for uint8 pixels."""
        return self._in_label_order(self.signatures["pixels"](pixels=tf.constant(pixels)))

    def _in_label_order(self, outputs: dict[str, tf.Tensor]) -> np.ndarray:
        ids = [[self._ids[name.decode()] for name in row] for row in outputs["classes"].numpy()]
        # Each row of ids is a permutation; its inverse restores the label order.
        inverse = tf.argsort(tf.constant(ids), axis=1)
        probabilities = tf.gather(outputs["probabilities"], inverse, batch_dims=1).numpy()
        return append_scores(probabilities, outputs)


def append_scores(probabilities: np.ndarray, outputs: Mapping[str, Any]) -> np.ndarray:
    """Return probabilities (n, classes), followed by the unknown score if there is one."""
    score = outputs.get("unknown_score")
    if score is None:
        return probabilities
    return np.column_stack([probabilities, np.reshape(score, -1)])
