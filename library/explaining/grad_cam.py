"""Heatmaps of the evidence for a class in an image: Grad-CAM, or occlusion if that is impossible.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weights each feature map of a convolutional layer
by the gradient of the class's score, averaged over the map, adds the maps up and keeps what is
positive. If a Flatten follows, each position of a map has a weight of its own, and the average
would be misleading. HiResCAM (Draelos and Carin 2020, arXiv 2011.08891) then weights each position
by its own gradient. After a global pooling the two are the same.

A TF-Hub module is one closed graph, so none of its layers can be reached; and a transformer's
tokens do not stay where they are in the image. Then parts of the image are covered in turn, and the
heatmap shows how much the score falls (Zeiler and Fergus 2014).
"""

import keras
import numpy as np
import tensorflow as tf

from library.explaining.layer_graph import FlatLayer, FlatNetwork, flatten_network
from library.messages import choose
from library.models.scores import is_multi_label

GRAD_CAM, HIRES_CAM, OCCLUSION = "Grad-CAM", "HiResCAM", "occlusion"
# Occlusion divides an image into this many cells each way, and covers squares of two by two.
_CELLS = 8


class HeatmapModel:
    """Computes heatmaps for one network, compiled once for all images.

    Attributes:
        method: GRAD_CAM, HIRES_CAM or OCCLUSION.
        layer: Name of the layer whose feature maps are weighted; None for occlusion.
    """

    def __init__(
        self,
        network: keras.Model,
        layer: str | None = None,
        flat_network: FlatNetwork | None = None,
    ) -> None:
        """Choose the method and compile it.

        Args:
            network: A functional model from pixels in [0, 255] to logits.
            layer: Name of a layer with feature maps; None: the last one.
            flat_network: The network, if it is flattened already.

        Raises:
            ChoiceError: There is no such layer.
        """
        flat_network = flat_network or flatten_network(network)
        chosen = _choose_layer(flat_network, layer)
        self._network = network
        self._multi_label = is_multi_label(network)
        self.layer = chosen.name if chosen else None
        self.method = OCCLUSION
        if chosen:
            later = flat_network.layers[flat_network.layers.index(chosen) + 1 :]
            is_flattened = any(isinstance(each.layer, keras.layers.Flatten) for each in later)
            self.method = HIRES_CAM if is_flattened else GRAD_CAM
            self._model = flat_network.make_model(chosen)
            self._compiled = tf.function(
                self._weighted_maps, reduce_retracing=True, autograph=False
            )

    def heatmaps(self, pixels: np.ndarray, class_ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence for a class in each image, and the scores of all classes.

        Args:
            pixels: (n, height, width, channels) in [0, 255].
            class_ids: A class for each image.

        Returns:
            Heatmaps, float32 (n, rows, columns) in [0, 1], and logits, float32 (n, classes). A
            heatmap is 0 everywhere if nothing in the image is evidence for the class.
        """
        pixels, class_ids = tf.cast(pixels, tf.float32), tf.cast(class_ids, tf.int32)
        if self.method == OCCLUSION:
            heat, scores = self._occlude(pixels, class_ids)
        else:
            heat, scores = (each.numpy() for each in self._compiled(pixels, class_ids))
        heat = np.maximum(heat, 0)
        # The floor keeps a heatmap of zeros at zero.
        return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-20), scores

    def _weighted_maps(self, pixels: tf.Tensor, class_ids: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            # Without this, the tape would record nothing of a frozen network.
            tape.watch(pixels)
            maps, scores = self._model(pixels, training=False)
            total = tf.reduce_sum(class_evidence(scores, class_ids, self._multi_label))
        gradients = tf.cast(tape.gradient(total, maps), tf.float32)
        if self.method == GRAD_CAM:
            gradients = tf.reduce_mean(gradients, [1, 2], keepdims=True)
        return tf.reduce_sum(gradients * tf.cast(maps, tf.float32), -1), scores

    def _occlude(self, pixels: tf.Tensor, class_ids: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores = self._network(pixels, training=False).numpy()
        evidence = class_evidence(scores, class_ids, self._multi_label)
        images = zip(pixels.numpy(), class_ids.numpy(), evidence, strict=True)
        return np.stack([self._mean_falls(*each[:2], float(each[2])) for each in images]), scores

    def _mean_falls(self, image: np.ndarray, class_id: int, evidence: float) -> np.ndarray:
        """Return for each cell the mean fall of evidence over the squares that cover it."""
        height, width = image.shape[:2]
        rows, columns = (np.linspace(0, n, min(_CELLS, n) + 1).astype(int) for n in (height, width))
        # An image of one row or column is covered cell by cell.
        squares = [
            (y, x) for y in range(max(1, len(rows) - 2)) for x in range(max(1, len(columns) - 2))
        ]
        covered = np.repeat(image[np.newaxis], len(squares), 0)
        for each, (y, x) in zip(covered, squares, strict=True):
            square = slice(rows[y], rows[y : y + 3][-1]), slice(columns[x], columns[x : x + 3][-1])
            each[square] = image.mean((0, 1))
        scores = self._network(covered, training=False)
        class_ids = tf.fill([len(squares)], class_id)
        remaining = class_evidence(scores, class_ids, self._multi_label).numpy()
        falls = np.zeros((len(rows) - 1, len(columns) - 1), np.float32)
        counts = np.zeros_like(falls)
        for (y, x), rest in zip(squares, remaining, strict=True):
            falls[y : y + 2, x : x + 2] += evidence - rest
            counts[y : y + 2, x : x + 2] += 1
        return falls / counts


def class_evidence(scores: tf.Tensor, class_ids: tf.Tensor, multi_label: bool = False) -> tf.Tensor:
    """Return float32 (n,): the score of each image's class; of two classes, its lead.

    Of two classes only the difference of the scores counts, and a network that learns one score for
    both keeps the other at 0, which has no gradient. Multi-label scores do not compete.

    Args:
        scores: Logits, (n, classes).
        class_ids: int32 (n,).
        multi_label: Whether an image may have several classes.
    """
    scores = tf.cast(scores, tf.float32)
    own = tf.gather(scores, class_ids, batch_dims=1)
    if multi_label or scores.shape[1] != 2:
        return own
    return own - tf.gather(scores, 1 - class_ids, batch_dims=1)


def _choose_layer(flat_network: FlatNetwork, name: str | None) -> FlatLayer | None:
    if name is None:
        return flat_network.last_spatial_layer()
    layers = {each.name: each for each in flat_network.layers if each.is_spatial}
    return choose("layer with feature maps", name, layers)
