"""A network that gives embeddings beside its scores: what its last layer makes the scores of."""

import keras

from library.errors import SettingsError
from library.models.scores import MULTI_LABEL
from library.prediction.ensemble import Member


def with_embedding(network):
    """Return a network of the same layers with two outputs: the scores, and the embedding.

    The embedding, float32 (n, size), is what the layer takes that gives the scores. Of several
    views (see combining.py) it is the mean; those of several networks lie side by side. Raises
    SettingsError where no layer is known to give the scores, or what it takes is no vector.
    """
    if not any(isinstance(each, Member) for each in network.layers):
        return keras.Model(network.input, [network.output, _embedding_of(network)])
    opened, views = {}, {}

    def call(layer, *given, **options):
        if not isinstance(layer, Member):
            return layer(*given, **options)
        if layer.number not in opened:
            opened[layer.number] = with_embedding(layer.network)
            opened[layer.number].name = layer.name
        scores, embedding = opened[layer.number](*given, training=False)
        views.setdefault(layer.number, []).append(embedding)
        return scores / layer.temperature

    # The same layers, called once more: no weight is copied, and no network runs twice.
    again = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    # In the order in which the networks were named: Keras calls them in another.
    means = [sum(each[1:], each[0]) / len(each) for _, each in sorted(views.items())]
    embedding = means[0] if len(means) == 1 else keras.ops.concatenate(means, axis=-1)
    return keras.Model(again.input, [again.output, embedding])


def _embedding_of(network):
    taken = [each.input for each in network.layers if each.name in ("scores", MULTI_LABEL)]
    if len(taken) != 1 or len(taken[0].shape) != 2:
        raise SettingsError(
            f"the network {network.name} has no embedding: no layer called scores takes a vector"
        )
    return keras.ops.cast(taken[0], "float32")
