"""Predict probabilities from pixels, with one network or an ensemble."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.embedding import with_embedding
from library.prediction.ensemble import combine_snapshots
from library.saving.snapshots import Snapshot


class Predictor:
    """Predicts probabilities, and embeddings on request, from pixels.

    Args:
        snapshots: One snapshot, or several whose probabilities are averaged.
        temperatures: What to divide each snapshot's scores by; None: 1 for all.
        views: How many views of each image to average over: see `combine_snapshots`.
        embedding: Predict embeddings too.
        xla: Compile the network with XLA.

    Attributes:
        classes: The class names in label order.
        multi_label: Whether an image may have several classes, or none.
        embedding_size: Length of an embedding; 0 without `embedding`.

    Raises:
        CheckpointError: The snapshots' classes, image shapes or kinds of labels differ.
        SettingsError: The network has no embedding.
    """

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        temperatures: Sequence[float] | None = None,
        views: int = 1,
        *,
        embedding: bool = False,
        xla: bool = False,
    ) -> None:
        combined = combine_snapshots(snapshots, temperatures, views)
        self.classes = combined.classes
        self.multi_label = is_multi_label(combined.network)
        network = with_embedding(combined.network) if embedding else combined.network
        self.embedding_size: int = network.output_shape[1][-1] if embedding else 0

        def finish(outputs: Any) -> Any:
            """Concatenate probabilities and embedding, so that the network runs once for both."""
            scores, *embeddings = outputs if embedding else [outputs]
            probabilities = to_probabilities(scores, multi_label=self.multi_label)
            return keras.ops.concatenate([probabilities, *embeddings], axis=-1)

        self._infer = Inference(network, finish, xla=xla)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 (n, classes) for uint8 pixels (n, height, width, channels).

        Each row adds up to 1, except for a multi-label network.
        """
        return self.predict(pixels)[0]

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (n, classes) and embeddings (n, embedding_size), both float32."""
        outputs = self._infer(pixels)
        return outputs[:, : len(self.classes)], outputs[:, len(self.classes) :]
