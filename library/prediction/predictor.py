"""Pixels → probabilities: of one network or the mean of several, of one view or of several."""

import keras

from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.embedding import with_embedding
from library.prediction.ensemble import combine


class Predictor:
    """What one snapshot, or several together, say of images.

    `temperatures` divide each one's scores before they become probabilities (None: 1). `views` is
    how many views of each image are looked at: see views.py. With `embedding`, `predict` gives
    embeddings too: see embedding.py. Raises CheckpointError if the snapshots' classes or images
    differ, SettingsError if there is no embedding.
    """

    def __init__(self, snapshots, temperatures=None, views=1, *, embedding=False, xla=False):
        combined = combine(snapshots, temperatures, views)
        self.classes = combined.classes
        # Whether an image may have several of the classes, or none.
        self.multi_label = is_multi_label(combined.network)
        network = with_embedding(combined.network) if embedding else combined.network
        self.embedding_size = network.output_shape[1][-1] if embedding else 0

        def finish(given):
            """Probabilities, and the embedding if asked for, as one: the network runs once."""
            scores, *embeddings = given if embedding else [given]
            probabilities = to_probabilities(scores, multi_label=self.multi_label)
            return keras.ops.concatenate([probabilities, *embeddings], axis=-1)

        self._infer = Inference(network, finish, xla=xla)

    def probabilities(self, pixels):
        """Return float32 (n, classes), in classes' order, for uint8 (n, height, width, channels).

        Each row adds up to 1, unless `several` classes may be right at once.
        """
        return self.predict(pixels)[0]

    def predict(self, pixels):
        """Return those probabilities and the embeddings, float32 (n, embedding_size)."""
        given = self._infer(pixels)
        return given[:, : len(self.classes)], given[:, len(self.classes) :]
