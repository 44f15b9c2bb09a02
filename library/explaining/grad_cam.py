"""Where in a picture the evidence for a class lies: Grad-CAM, or occlusion where it can't be had.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weighs each map of a convolutional layer by how
much the class's score grows with it, on average over the map, adds the maps up and keeps what is
positive. Where a Flatten follows, each place of a map has a weight of its own, and an average over
places would tell nothing: then each place is weighed by its own gradient (HiResCAM, Draelos and
Carin 2020, arXiv 2011.08891). Behind a global pooling the two are the same.

Where no layer with places can be reached (a TF-Hub module is one closed graph), parts of the
picture are covered in turn, and the fall of the score is drawn (Zeiler and Fergus 2014).
"""

import keras
import numpy as np
import tensorflow as tf

from library.messages import choose
from library.models.layer_graph import flatten_network
from library.models.scores import is_multi_label

GRAD_CAM, HIRES_CAM, OCCLUSION = "Grad-CAM", "Grad-CAM place by place (HiResCAM)", "occlusion"
# Occlusion divides a picture into so many cells each way, and covers squares of two by two.
_CELLS = 8


class HeatMaps:
    """Draws heat maps for one network; compiled once for all pictures.

    `method` says how, `layer` is the name of the layer whose maps are weighed (None if occluding).
    """

    def __init__(self, network, layer_name=None, opened=None):
        opened = opened or flatten_network(network)
        layer = _choose(opened, layer_name)
        self._network = network
        self._several = is_multi_label(network)
        self.layer = layer.name if layer else None
        if layer is None:
            self.method = OCCLUSION
            return
        later = opened.layers[opened.layers.index(layer) + 1 :]
        is_flattened = any(isinstance(each.layer, keras.layers.Flatten) for each in later)
        self.method = HIRES_CAM if is_flattened else GRAD_CAM
        self._model = opened.make_model(layer)
        self._compiled = tf.function(self._weighed, reduce_retracing=True)

    def heat(self, pixels, classes):
        """Return float32 heat (n, rows, columns) from 0 to 1, and float32 scores (n, class_count).

        Takes pixels (n, height, width, channels) in [0, 255] and a class id for each. A picture in
        which nothing speaks for its class has no heat at all.
        """
        pixels, classes = tf.cast(pixels, tf.float32), tf.cast(classes, tf.int32)
        if self.method == OCCLUSION:
            heat, scores = self._occluded(pixels, classes)
        else:
            heat, scores = (each.numpy() for each in self._compiled(pixels, classes))
        heat = np.maximum(heat, 0)
        # A map of zeros stays one.
        return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-20), scores

    def _weighed(self, pixels, classes):
        with tf.GradientTape() as tape:
            # Whatever is trained: without this, nothing of a frozen network would be on the tape.
            tape.watch(pixels)
            maps, scores = self._model(pixels, training=False)
            wanted = tf.reduce_sum(evidence(scores, classes, self._several))
        gradients = tf.cast(tape.gradient(wanted, maps), tf.float32)
        if self.method == GRAD_CAM:
            gradients = tf.reduce_mean(gradients, [1, 2], keepdims=True)
        return tf.reduce_sum(gradients * tf.cast(maps, tf.float32), -1), scores

    def _occluded(self, pixels, classes):
        scores = self._network(pixels, training=False).numpy()
        heat = [
            self._falls(picture, label, float(whole))
            for picture, label, whole in zip(
                pixels.numpy(),
                classes.numpy(),
                evidence(scores, classes, self._several),
                strict=True,
            )
        ]
        return np.stack(heat), scores

    def _falls(self, picture, label, whole):
        """Return each cell's mean fall of evidence over the squares that cover it."""
        height, width = picture.shape[:2]
        rows, columns = (np.linspace(0, n, min(_CELLS, n) + 1).astype(int) for n in (height, width))
        # A picture of one row or column is covered cell by cell.
        squares = [
            (y, x) for y in range(max(1, len(rows) - 2)) for x in range(max(1, len(columns) - 2))
        ]
        covered = np.repeat(picture[np.newaxis], len(squares), 0)
        for each, (y, x) in zip(covered, squares, strict=True):
            here = slice(rows[y], rows[y : y + 3][-1]), slice(columns[x], columns[x : x + 3][-1])
            each[here] = picture.mean((0, 1))
        scores = self._network(covered, training=False)
        labels = tf.fill([len(squares)], label)
        left = evidence(scores, labels, self._several).numpy()
        falls = np.zeros((len(rows) - 1, len(columns) - 1), np.float32)
        times = np.zeros_like(falls)
        for (y, x), rest in zip(squares, left, strict=True):
            falls[y : y + 2, x : x + 2] += whole - rest
            times[y : y + 2, x : x + 2] += 1
        return falls / times


def evidence(scores, classes, multi_label=False):
    """Return float32 (n,): the score of each picture's class; of two classes, what it is ahead by.

    Of two, only the difference decides, and a network that learns one score for both keeps the
    other at 0, from which no gradient comes. Not so where `several` classes may be right at once.
    """
    scores = tf.cast(scores, tf.float32)
    wanted = tf.gather(scores, classes, batch_dims=1)
    if multi_label or scores.shape[1] != 2:
        return wanted
    return wanted - tf.gather(scores, 1 - classes, batch_dims=1)


def _choose(opened, name):
    if name is None:
        return opened.last_spatial_layer()
    return choose(
        "layer with maps", name, {each.name: each for each in opened.layers if each.is_spatial}
    )
