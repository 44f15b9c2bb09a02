"""Pixels → probabilities: of one network or the mean of several, of one view or of several."""

from functools import partial

from library.evaluation.probabilities import is_multi_label, to_probabilities
from library.inference import Inference
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
        # Whether an image may have several of the classes, or none.
        self.several = is_multi_label(combined.network)
        to_answers = partial(to_probabilities, several=self.several)
        self._infer = Inference(combined.network, to_answers, xla=xla)

    def probabilities(self, pixels):
        """Give float32 (n, classes), in the classes' order, for uint8 (n, height, width, channels).

        Each row adds up to 1, unless `several` classes may be right at once.
        """
        return self._infer(pixels)
