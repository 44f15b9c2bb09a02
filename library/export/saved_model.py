"""The SavedModel for TensorFlow Serving: image bytes, or pixels, in; classes, likeliest first, out.

Signatures:
- `serving_default`: `image_bytes`, strings (n,) → `classes`, strings (n, classes), and
  `probabilities`, float32 (n, classes), both sorted by probability, likeliest first
- `pixels`: `pixels`, uint8 (n, height, width, channels) → the same

On request both give `embedding` too, float32 (n, size): see library/prediction/embedding.py.
"""

import tensorflow as tf

from library.export.bytes_to_pixels import prepare_bytes
from library.inputs.decoding import ImageFormat
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.embedding import with_embedding


class _Served(tf.Module):
    """The network with what comes before and after it."""

    def __init__(self, snapshot, embedding):
        super().__init__()
        self.network = with_embedding(snapshot.network) if embedding else snapshot.network
        self._has_embedding = embedding
        self._several = is_multi_label(snapshot.network)
        self._names = tf.constant(snapshot.classes)
        self._options = snapshot.image_options
        self._format = ImageFormat.of(snapshot.network)
        shape = [None, *self._format.shape]
        self.from_pixels = tf.function(
            self._from_pixels, input_signature=[tf.TensorSpec(shape, tf.uint8, "pixels")]
        )
        self.from_bytes = tf.function(
            # TensorFlow Serving decodes base64 where a name ends in _bytes.
            self._from_bytes,
            input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")],
        )

    def _from_pixels(self, pixels):
        given = self.network(tf.cast(pixels, tf.float32), training=False)
        scores, *embeddings = given if self._has_embedding else [given]
        probabilities = to_probabilities(scores, multi_label=self._several)
        order = tf.argsort(probabilities, direction="DESCENDING", stable=True)
        return {
            "classes": tf.gather(self._names, order),
            "probabilities": tf.gather(probabilities, order, batch_dims=1),
            **({"embedding": embeddings[0]} if embeddings else {}),
        }

    def _from_bytes(self, image_bytes):
        # Decoding is for processors, whatever the network runs on.
        with tf.device("/CPU:0"):
            pixels = tf.map_fn(
                lambda encoded: prepare_bytes(encoded, self._format, self._options),
                image_bytes,
                fn_output_signature=tf.TensorSpec(self._format.shape, tf.uint8),
            )
        return self._from_pixels(pixels)


def write_saved_model(folder, snapshot, *, embedding=False):
    """Write the SavedModel of a Snapshot into `folder`."""
    served = _Served(snapshot, embedding)
    signatures = {"serving_default": served.from_bytes, "pixels": served.from_pixels}
    tf.saved_model.save(served, str(folder), signatures=signatures)


class ServedModel:
    """A SavedModel as read from disk: what TensorFlow Serving would answer."""

    def __init__(self, folder, classes):
        self._signatures = tf.saved_model.load(str(folder)).signatures
        self._ids = {name: number for number, name in enumerate(classes)}

    def from_bytes(self, encoded):
        """Return float32 (n, classes), in the classes' order, for a list of bytes."""
        return self._ordered(self._signatures["serving_default"](image_bytes=tf.constant(encoded)))

    def from_pixels(self, pixels):
        """Return float32 (n, classes), in the classes' order, for uint8 pixels."""
        return self._ordered(self._signatures["pixels"](pixels=tf.constant(pixels)))

    def _ordered(self, answer):
        ids = [[self._ids[name.decode()] for name in row] for row in answer["classes"].numpy()]
        # A row of ids is an order; its inverse brings back the classes' own.
        inverse = tf.argsort(tf.constant(ids), axis=1)
        return tf.gather(answer["probabilities"], inverse, batch_dims=1).numpy()
