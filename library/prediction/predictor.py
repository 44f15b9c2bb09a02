"""Pixels → probabilities: of one network or the mean of several, of one view or of several."""

import tensorflow as tf

from library.evaluation.probabilities import is_multi_label, to_probabilities
from library.prediction.combining import combine


class Predictor:
    """What one snapshot, or several together, say of images.

    `temperatures` divide each one's scores before they become probabilities (None: 1). `views` is
    how many views of each image are looked at: see views.py. Raises CheckpointError if the
    snapshots' classes or images differ.
    """

    def __init__(self, snapshots, temperatures=None, views=1, *, xla=False):
        combined = combine(snapshots, temperatures, views)
        self.classes = combined.classes
        self._network = combined.network
        # Whether an image may have several of the classes, or none.
        self.several = is_multi_label(self._network)
        self._step = tf.function(self._predict, reduce_retracing=True, jit_compile=xla or None)

    def probabilities(self, pixels):
        """Give float32 (n, classes), in the classes' order, for uint8 (n, height, width, channels).

        Each row adds up to 1, unless `several` classes may be right at once.
        """
        return self._step(tf.convert_to_tensor(pixels)).numpy()

    def _predict(self, pixels):
        scores = self._network(tf.cast(pixels, tf.float32), training=False)
        return to_probabilities(scores, several=self.several)
