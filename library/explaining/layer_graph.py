"""A flat view of a network: the output of every layer is accessible, inside nested models too."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from library.models.functional import is_functional, to_functional


@dataclass(frozen=True)
class FlatLayer:
    """One call of a layer.

    Attributes:
        name: Path in the network (`base/out_relu`).
        layer: The layer.
        output: Its symbolic output.
        is_learned: Whether the output depends on weights.
    """

    name: str
    layer: Any
    output: keras.KerasTensor
    is_learned: bool

    @property
    def is_spatial(self) -> bool:
        """Whether the output is a map: (batch, height, width, channels) of several positions."""
        return len(self.output.shape) == 4 and self.output.shape[1] * self.output.shape[2] > 1


@dataclass(frozen=True)
class FlatNetwork:
    """The same network, sharing its layers, with those of nested models side by side.

    Attributes:
        pixels: The symbolic input.
        layers: The layers in the order in which they run.
        scores: The symbolic logits.
    """

    pixels: keras.KerasTensor
    layers: tuple[FlatLayer, ...]
    scores: keras.KerasTensor

    def make_model(self, *layers: FlatLayer) -> keras.Model:
        """Return a model from pixels to the outputs of these layers, and the logits."""
        return keras.Model(self.pixels, [*(each.output for each in layers), self.scores])

    def last_spatial_layer(self) -> FlatLayer | None:
        """Return the last layer whose output is a map that depends on weights, or None."""
        found = [each for each in self.layers if each.is_learned and each.is_spatial]
        return found[-1] if found else None


def flatten_network(network: keras.Model) -> FlatNetwork:
    """Return the flat view of a network; a subclassed model inside is one layer of it."""
    network = to_functional(network)
    found: list[FlatLayer] = []
    # Identities of the tensors that depend on weights; `found` keeps the tensors alive.
    learned: set[int] = set()

    def call_within(prefix: str) -> Callable[..., Any]:
        def call(layer: Any, *arguments: Any, **options: Any) -> Any:
            name = f"{prefix}{layer.name}"
            if isinstance(layer, keras.Sequential):
                (output,) = arguments
                for inner in layer.layers:
                    output = call_within(f"{name}/")(inner, output)
                return output
            if isinstance(layer, keras.Model) and is_functional(layer):
                call_again(layer, arguments[0], f"{name}/")
                last = next(each for each in layer.operations if each.output is layer.output)
                return next(each.output for each in reversed(found) if each.layer is last)
            output = layer(*arguments, **options)
            # An operation, such as a function of keras.ops, has no weights.
            has_weights = isinstance(layer, keras.layers.Layer) and bool(layer.weights)
            inputs = keras.tree.flatten((arguments, options))
            is_learned = has_weights or any(id(each) in learned for each in inputs)
            if is_learned:
                learned.update(map(id, keras.tree.flatten(output)))
            found.append(FlatLayer(name, layer, output, is_learned))
            return output

        return call

    def call_again(model: keras.Model, pixels: Any, prefix: str) -> Any:
        # The same layers, called once more: no weight is copied.
        return keras.models.clone_model(
            model,
            input_tensors=pixels,
            clone_function=lambda layer: layer,
            call_function=call_within(prefix),
        )

    opened = call_again(network, None, "")
    return FlatNetwork(opened.input, tuple(found), opened.output)
