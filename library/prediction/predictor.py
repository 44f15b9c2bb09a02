"""Pixels → probabilities: of one network or the mean of several, of one view or of several."""

import tensorflow as tf

from library.errors import CheckpointError
from library.evaluation.probabilities import is_multi_label, to_probabilities
from library.prediction.views import find_views


class Predictor:
    """What one snapshot, or several together, say of images.

    `temperatures` divide each one's scores before they become probabilities (None: 1). `views` is
    how many views of each image are looked at: see views.py. Raises CheckpointError if the
    snapshots' classes or images differ.
    """

    def __init__(self, snapshots, temperatures=None, views=1, *, xla=False):
        self.classes = snapshots[0].classes
        # Whether an image may have several of the classes, or none.
        self.several = is_multi_label(snapshots[0].network)
        self._networks = [each.network for each in snapshots]
        self._temperatures = temperatures or [1.0] * len(snapshots)
        self._views = find_views(views)
        for each in snapshots[1:]:
            _check_likeness(snapshots[0], each)
        self._step = tf.function(self._mean, reduce_retracing=True, jit_compile=xla or None)

    def probabilities(self, pixels):
        """Give float32 (n, classes), in the classes' order, for uint8 (n, height, width, channels).

        Each row adds up to 1, unless `several` classes may be right at once.
        """
        return self._step(tf.convert_to_tensor(pixels)).numpy()

    def _mean(self, pixels):
        images = tf.cast(pixels, tf.float32)
        parts = [
            to_probabilities(
                network(view(images), training=False), temperature, several=self.several
            )
            for view in self._views
            for network, temperature in zip(self._networks, self._temperatures, strict=True)
        ]
        return tf.add_n(parts) / len(parts)


def _check_likeness(first, other):
    if first.classes != other.classes:
        ours, theirs = set(first.classes), set(other.classes)
        different = sorted(ours ^ theirs) or ["their order"]
        raise CheckpointError(
            f"an ensemble's snapshots must have the same classes; they differ in {different[0]!r}"
        )
    if first.network.input_shape != other.network.input_shape:
        raise CheckpointError(
            "an ensemble's networks must take the same images: "
            f"{first.network.input_shape[1:]} is not {other.network.input_shape[1:]}"
        )
    if is_multi_label(first.network) != is_multi_label(other.network):
        raise CheckpointError(
            "an ensemble's networks must all give several classes an image, or all one"
        )
