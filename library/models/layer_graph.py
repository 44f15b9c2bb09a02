"""A network laid open: what every layer gives is within reach, inside nested models too."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Layer:
    """One layer as it runs: its name (`base/out_relu`), the layer, and its symbolic output.

    `is_learned`: whether it has weights, or takes what comes of a layer that has.
    """

    name: str
    layer: object
    output: keras.KerasTensor
    is_learned: bool

    @property
    def is_spatial(self):
        """Whether it gives maps: (batch, height, width, channels) of more than one place."""
        return len(self.output.shape) == 4 and self.output.shape[1] * self.output.shape[2] > 1


@dataclass(frozen=True)
class FlatNetwork:
    """The same network, sharing its layers, with those of nested models side by side."""

    pixels: keras.KerasTensor
    # In the order in which they run.
    layers: tuple
    scores: keras.KerasTensor

    def make_model(self, *layers):
        """Return a model of pixels that gives the outputs of these Layers, and the scores."""
        return keras.Model(self.pixels, [*(each.output for each in layers), self.scores])

    def last_spatial_layer(self):
        """Return the last Layer with maps that learned layers took part in, or None."""
        found = [each for each in self.layers if each.is_learned and each.is_spatial]
        return found[-1] if found else None


def flatten_network(network):
    """Return the FlatNetwork of a functional network."""
    found = []
    # The identities of the tensors that learned layers took part in; `found` keeps them alive.
    learned = set()

    def call_within(prefix):
        def call(layer, *given, **options):
            name = f"{prefix}{layer.name}"
            if isinstance(layer, keras.Sequential):
                (output,) = given
                for inner in layer.layers:
                    output = call_within(f"{name}/")(inner, output)
                return output
            if isinstance(layer, keras.Model):
                call_again(layer, given[0], f"{name}/")
                last = next(each for each in layer.operations if each.output is layer.output)
                return next(each.output for each in reversed(found) if each.layer is last)
            output = layer(*given, **options)
            is_learned = bool(getattr(layer, "weights", ())) or any(
                id(each) in learned for each in keras.tree.flatten((given, options))
            )
            if is_learned:
                learned.update(map(id, keras.tree.flatten(output)))
            found.append(Layer(name, layer, output, is_learned))
            return output

        return call

    def call_again(model, pixels, prefix):
        # The same layers, called once more on the way: no weight is copied.
        return keras.models.clone_model(
            model,
            input_tensors=pixels,
            clone_function=lambda layer: layer,
            call_function=call_within(prefix),
        )

    opened = call_again(network, None, "")
    return FlatNetwork(opened.input, tuple(found), opened.output)
