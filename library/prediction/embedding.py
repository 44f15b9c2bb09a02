"""Embeddings: the vectors from which a network's last layer computes the scores."""

from typing import Any

import keras

from library.errors import SettingsError
from library.models.functional import to_functional
from library.models.scores import MULTI_LABEL
from library.prediction.ensemble import EnsembleMember


def with_embedding(network: keras.Model) -> keras.Model:
    """Return a network of the same layers with two outputs: the scores and the embedding.

    The embedding, float32 (n, size), is the input of the layer that computes the scores: the one
    named so, or the last one with weights. For several views it is their mean; those of several
    networks are concatenated.

    Raises:
        SettingsError: The input of that layer is not a vector.
    """
    network = to_functional(network)
    if not any(isinstance(layer, EnsembleMember) for layer in network.layers):
        return keras.Model(network.input, [network.output, _embedding_of(network)])
    extended: dict[int, keras.Model] = {}
    embeddings: dict[int, list[Any]] = {}

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        if not isinstance(layer, EnsembleMember):
            return layer(*inputs, **options)
        if layer.number not in extended:
            extended[layer.number] = with_embedding(layer.network)
            extended[layer.number].name = layer.name
        scores, embedding = extended[layer.number](*inputs, training=False)
        embeddings.setdefault(layer.number, []).append(embedding)
        return scores / layer.temperature

    # The same layers are called again: no weight is copied, and no network runs twice.
    clone = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    # Sort the members by number: Keras calls them in another order.
    means = [sum(views[1:], views[0]) / len(views) for _, views in sorted(embeddings.items())]
    embedding = means[0] if len(means) == 1 else keras.ops.concatenate(means, axis=-1)
    return keras.Model(clone.input, [clone.output, embedding])


def _embedding_of(network: keras.Model) -> Any:
    weighted = [layer for layer in network.layers if layer.weights]
    named = [layer for layer in weighted if layer.name in ("scores", MULTI_LABEL)]
    last = (named or weighted)[-1:]
    if not last or len(last[0].input.shape) != 2:
        raise SettingsError(
            f"the network {network.name} has no embedding: its last layer with weights takes no "
            "vector"
        )
    return keras.ops.cast(last[0].input, "float32")
