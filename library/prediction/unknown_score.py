"""Unknown images: a score of how far an image is from those that a network learned.

Two out-of-distribution scores; the larger, the less known is the image. `neighbors` is the cosine
distance of its embedding to the k-th nearest of the training images (Sun et al. 2022, arXiv
2204.06507, take the Euclidean distance of embeddings of length 1, which gives the same order).
`energy` is minus the logarithm of the sum of the exponentials of the logits (Liu et al. 2020, arXiv
2010.03759); for multi-label networks minus the sum of log(1 + exp(logit)) over the labels (Wang et
al. 2021, arXiv 2111.12797).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from library.models.scores import is_multi_label
from library.prediction.embedding import with_embedding

ScoreName = Literal["neighbors", "energy"]
# The k of the k-th nearest neighbor. With Fashion-MNIST the nearest alone is better at digits, but
# one odd training image makes noise look known (benchmarks/unknown.py).
NEIGHBOR = 5
# Below it, the squared length of an embedding counts as 0.
_MIN_SQUARE = 1e-24


@dataclass(frozen=True)
class UnknownDetector:
    """Which images are unknown: those whose score is above a threshold.

    Attributes:
        score: Which score.
        threshold: The highest score of an image that is known.
        unit: What scores are divided by after that is subtracted: the standard deviation of those
            of the validation images.
        bank: For `neighbors`: embeddings of training images, float32 (n, size), of length 1.
        temperature: What the network's logits have been divided by, which the energy undoes.
        neighbor: The k of the k-th nearest neighbor.
    """

    score: ScoreName
    threshold: float = 0.0
    unit: float = 1.0
    bank: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    temperature: float = 1.0
    neighbor: int = NEIGHBOR


def extend_network(
    network: keras.Model, *, embedding: bool = False, detector: UnknownDetector | None = None
) -> keras.Model:
    """Return a network of the same layers whose output is a dict.

    Its keys are `scores`; with `embedding` also `embedding` (see `with_embedding`), and with a
    detector `unknown_score`, float32 (n,): above 0, the image is unknown.

    Raises:
        SettingsError: The network has no embedding.
    """
    outputs = {"scores": network.output}
    if embedding or (detector and detector.score == "neighbors"):
        network = with_embedding(network)
        outputs = dict(zip(("scores", "embedding"), network.outputs, strict=True))
    if detector:
        layer = UnknownScore(detector, multi_label=is_multi_label(network))
        outputs["unknown_score"] = layer(outputs["scores"], outputs.get("embedding"))
    if not embedding:
        outputs.pop("embedding", None)
    return keras.Model(network.input, outputs)


class UnknownScore(keras.layers.Layer):
    """A detector's score, minus its threshold, in its unit."""

    def __init__(self, detector: UnknownDetector, *, multi_label: bool) -> None:
        super().__init__(name="unknown_score", dtype="float32", trainable=False)
        self._detector, self._multi_label = detector, multi_label
        self._neighbor = min(detector.neighbor, len(detector.bank))
        if detector.score == "neighbors":
            # A weight and not a constant, so that converters store it once.
            self._bank = self.add_weight(
                name="bank", shape=detector.bank.T.shape, initializer="zeros", trainable=False
            )
            self._bank.assign(detector.bank.T)
        self.built = True

    def call(self, scores: Any, embedding: Any = None) -> Any:
        """Return float32 (n,) for logits (n, classes) and an embedding (n, size)."""
        ops, detector = keras.ops, self._detector
        logits = scores * detector.temperature
        if detector.score == "neighbors":
            square = ops.sum(embedding * embedding, axis=-1, keepdims=True)
            unit = embedding * ops.rsqrt(ops.maximum(square, _MIN_SQUARE))
            similarities = ops.matmul(unit, self._bank)
            found = 1 - ops.top_k(similarities, self._neighbor)[0][:, -1]
        elif self._multi_label:
            found = -ops.sum(ops.softplus(logits), axis=-1)
        else:
            found = -ops.logsumexp(logits, axis=-1)
        return (found - detector.threshold) / detector.unit
