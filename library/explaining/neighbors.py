"""The training images that a network finds most alike: nearest by cosine of their embeddings."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from library.prediction.embedding import with_embedding


@dataclass(frozen=True)
class Neighbor:
    """A training image: its number in the split's order, file name, cosine, and pixels (uint8).

    `label` is its class id, or 0 and 1 for each class where several may be right.
    """

    number: int
    name: str
    label: object
    similarity: float
    pixels: np.ndarray


def make_embedding(network):
    """Return a function of pixels (n, height, width, channels) to embeddings of length 1, float64.

    The embedding is what the layer that gives the scores takes: see embedding.py.
    """
    model = with_embedding(network)
    run = tf.function(lambda pixels: model(pixels, training=False)[1], reduce_retracing=True)

    def embed(pixels):
        given = run(tf.cast(pixels, tf.float32)).numpy().astype(np.float64)
        length = np.sqrt((given**2).sum(1, keepdims=True))
        # What gives no signal at all is like nothing, itself included.
        return given / np.where(length > 0, length, 1)

    return embed


def find_neighbors(queries, batches, embed, count):
    """Return for each query (rows of unit length) its `count` nearest Neighbors, nearest first.

    Exact: every image of the (images, labels, names) batches is compared. Only one batch and the
    nearest so far are in memory. Of equally near ones those that come first are kept.
    """
    nearest = [[] for _ in queries]
    start = 0
    for images, labels, names in batches:
        images, labels, names = np.asarray(images), np.asarray(labels), np.asarray(names)
        similarities = queries @ embed(images).T
        for row, kept in zip(similarities, nearest, strict=True):
            kept += [
                Neighbor(
                    number=start + int(at),
                    name=names[at].decode("utf-8", "replace"),
                    label=labels[at].tolist(),
                    similarity=float(row[at]),
                    pixels=images[at].copy(),
                )
                for at in _largest(row, count)
                if len(kept) < count or row[at] > kept[-1].similarity
            ]
            kept.sort(key=lambda each: (-each.similarity, each.number))
            del kept[count:]
        start += len(images)
    return nearest


def _largest(values, count):
    """Return the places of the largest values; of equal ones the first."""
    return np.argsort(-values, kind="stable")[:count]
