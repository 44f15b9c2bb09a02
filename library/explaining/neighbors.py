"""Nearest training images: those whose embeddings have the largest cosine similarity."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from library.prediction.embedding import with_embedding

# Pixels (n, height, width, channels) → embeddings of length 1, float64 (n, size).
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Neighbor:
    """A training image near another image.

    Attributes:
        index: Position in the split's order.
        name: File name as converted.
        label: Class id, or a list of 0 and 1 for each class if multi-label.
        similarity: Cosine similarity of the embeddings, in [-1, 1].
        pixels: uint8 (height, width, channels).
    """

    index: int
    name: str
    label: int | list[float]
    similarity: float
    pixels: np.ndarray


def make_embed(network: keras.Model) -> Embed:
    """Return a function from pixels to a network's embeddings, scaled to length 1.

    The embedding is the input of the layer that gives the scores. Raises SettingsError if there is
    no such layer.
    """
    model = with_embedding(network)
    run = tf.function(
        lambda pixels: model(pixels, training=False)[1], reduce_retracing=True, autograph=False
    )

    def embed(pixels: np.ndarray) -> np.ndarray:
        embeddings = run(tf.cast(pixels, tf.float32)).numpy().astype(np.float64)
        length = np.sqrt((embeddings**2).sum(1, keepdims=True))
        # An embedding of zeros stays so: it is similar to nothing, itself included.
        return embeddings / np.where(length > 0, length, 1)

    return embed


def find_neighbors(
    queries: np.ndarray, batches: Iterable[tuple], embed: Embed, count: int
) -> list[list[Neighbor]]:
    """Return the `count` nearest neighbors of each query, nearest first, by exhaustive search.

    Only one batch and the nearest images so far are in memory. Of equally near images the first
    ones are returned.

    Args:
        queries: Embeddings of length 1, (n, size).
        batches: The (images, labels, names) batches to search.
        embed: Computes the embeddings of the images.
        count: Neighbors per query.
    """
    nearest: list[list[Neighbor]] = [[] for _ in queries]
    start = 0
    for images, labels, names in batches:
        images, labels, names = np.asarray(images), np.asarray(labels), np.asarray(names)
        for row, found in zip(queries @ embed(images).T, nearest, strict=True):
            found += [
                Neighbor(
                    index=start + int(at),
                    name=names[at].decode("utf-8", "replace"),
                    label=labels[at].tolist(),
                    similarity=float(row[at]),
                    pixels=images[at].copy(),
                )
                # A stable sort puts the first of equal ones first.
                for at in np.argsort(-row, kind="stable")[:count]
                if len(found) < count or row[at] > found[-1].similarity
            ]
            found.sort(key=lambda each: (-each.similarity, each.index))
            del found[count:]
        start += len(images)
    return nearest
