"""Predict probabilities from pixels, with one network or an ensemble."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.ensemble import combine_snapshots
from library.prediction.unknown_score import UnknownDetector, extend_network
from library.saving.snapshots import Snapshot


class Outputs(NamedTuple):
    """What a network says about n images, all float32.

    Attributes:
        probabilities: Shape (n, classes); each row adds up to 1, except for multi-label networks.
        embeddings: Shape (n, embedding_size).
        unknown_scores: Shape (n,), above 0 for unknown images; (0,) without a detector.
    """

    probabilities: np.ndarray
    embeddings: np.ndarray
    unknown_scores: np.ndarray


class Predictor:
    """Predicts probabilities from pixels; on request embeddings, and whether images are unknown.

    Args:
        snapshots: One snapshot, or several whose probabilities are averaged.
        temperatures: What to divide each snapshot's scores by; None: 1 for all.
        views: How many views of each image to average over: see `combine_snapshots`.
        embedding: Predict embeddings too.
        detector: Tells unknown images.
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
        detector: UnknownDetector | None = None,
        xla: bool = False,
    ) -> None:
        combined = combine_snapshots(snapshots, temperatures, views)
        self.classes = combined.classes
        self.multi_label = is_multi_label(combined.network)
        network = extend_network(combined.network, embedding=embedding, detector=detector)
        self.embedding_size: int = network.output["embedding"].shape[-1] if embedding else 0
        self._has_detector = detector is not None

        def finish(outputs: dict[str, Any]) -> Any:
            """Concatenate all outputs, so that the network runs once for them."""
            probabilities = to_probabilities(outputs["scores"], multi_label=self.multi_label)
            parts = [probabilities]
            if embedding:
                parts.append(outputs["embedding"])
            if detector:
                parts.append(outputs["unknown_score"][:, None])
            return keras.ops.concatenate(parts, axis=-1)

        self._infer = Inference(network, finish, xla=xla)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 (n, classes) for uint8 pixels (n, height, width, channels).

        Each row adds up to 1, except for a multi-label network.
        """
        return self.run(pixels).probabilities

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (n, classes) and embeddings (n, embedding_size), both float32."""
        return self.run(pixels)[:2]

    def run(self, pixels: np.ndarray) -> Outputs:
        """Return the outputs for uint8 pixels (n, height, width, channels)."""
        outputs = self._infer(pixels)
        classes, end = len(self.classes), len(self.classes) + self.embedding_size
        unknown = outputs[:, end] if self._has_detector else np.zeros(0, np.float32)
        return Outputs(outputs[:, :classes], outputs[:, classes:end], unknown)
