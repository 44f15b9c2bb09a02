"""A flat view of a network: the output of every layer is accessible, inside nested models too."""

import warnings
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
        output: Its symbolic output; of several, the first one.
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

    @property
    def is_of_tokens(self) -> bool:
        """Whether the output is a sequence, (batch, tokens, channels), laid out as a map."""
        return isinstance(self.layer, keras.layers.Reshape) and len(self.layer.input.shape) == 3


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
        """Return the last layer whose output is a map that depends on weights, or None.

        None for a transformer: any of its tokens may hold evidence from anywhere in the image.
        """
        found = [each for each in self.layers if each.is_learned and each.is_spatial]
        return found[-1] if found and not found[-1].is_of_tokens else None


def flatten_network(network: keras.Model) -> FlatNetwork:
    """Return the flat view of a network; a subclassed model inside is one layer of it."""
    network = to_functional(network)
    found: list[FlatLayer] = []
    # Identities of the tensors that depend on weights; `found` keeps the tensors alive.
    learned: set[int] = set()
    # Identity of an operation → its newest outputs.
    newest: dict[int, list[Any]] = {}

    def output_again(tensor: Any) -> Any:
        operation, _, index = tensor._keras_history
        return newest[id(operation)][index]

    def call_within(prefix: str) -> Callable[..., Any]:
        def call(layer: Any, *arguments: Any, **options: Any) -> Any:
            output = call_flat(layer, *arguments, **options)
            newest[id(layer)] = keras.tree.flatten(output)
            return output

        def call_flat(layer: Any, *arguments: Any, **options: Any) -> Any:
            name = f"{prefix}{layer.name}"
            if isinstance(layer, keras.Sequential):
                (output,) = arguments
                for inner in layer.layers:
                    output = call_within(f"{name}/")(inner, output)
                return output
            if isinstance(layer, keras.Model) and is_functional(layer):
                call_again(layer, arguments[0], f"{name}/")
                return keras.tree.map_structure(output_again, layer.output)
            output = layer(*arguments, **options)
            # An operation, such as a function of keras.ops, has no weights.
            has_weights = isinstance(layer, keras.layers.Layer) and bool(layer.weights)
            inputs = keras.tree.flatten((arguments, options))
            is_learned = has_weights or any(id(each) in learned for each in inputs)
            if is_learned:
                learned.update(map(id, keras.tree.flatten(output)))
            # Of several outputs, the first one is what the next layer gets.
            found.append(FlatLayer(name, layer, keras.tree.flatten(output)[0], is_learned))
            return output

        return call

    def call_again(model: keras.Model, pixels: Any, prefix: str) -> Any:
        with warnings.catch_warnings():
            # Keras warns that the outer network has another name for an input that a model names.
            warnings.simplefilter("ignore")
            # The same layers, called once more: no weight is copied.
            return keras.models.clone_model(
                model,
                input_tensors=pixels,
                clone_function=lambda layer: layer,
                call_function=call_within(prefix),
            )

    opened = call_again(network, None, "")
    return FlatNetwork(opened.input, tuple(found), opened.output)
