"""A network as a list of named layers, which can be frozen, loaded and given a learning rate.

A layer is one with weights, by its path (`base/block_16_project`, `scores`), or the variables of a
TF-Hub module that share a scope. Layers form blocks, from the network's input to its head.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras

from library.errors import SettingsError
from library.messages import did_you_mean
from library.models.hub_layer import HubLayer
from library.models.saved_model import unique_names

# The name of the pretrained part of a network: a nested model, or a HubLayer.
BASE = "base"
# How the names of a block's layers begin: block_16_project, conv5_block3_1_conv, block6a_bn;
# block35_7_conv is in the seventh of the blocks called 35.
_BLOCK = re.compile(
    r".*?(?:(?<![^/])block\d+_\d+(?![a-z0-9])"
    r"|(?:blocks?|layers|expanded_conv|conv_[dp]w)_?\d+[a-z]?(?![a-z]))"
)
_MERGES = (keras.layers.Add, keras.layers.Concatenate)


@dataclass(frozen=True, eq=False)
class WeightedLayer:
    """A layer with weights, or some variables of a TF-Hub module.

    Attributes:
        name: Path in the network.
        layer: The Keras layer.
        variables: Its variables by their names within it.
        numbered: For each variable, its (layer, name) in files that number a layer's variables.
        block: The name of its block.
    """

    name: str
    layer: keras.layers.Layer
    variables: dict[str, keras.Variable]
    numbered: tuple[tuple[str, str], ...]
    block: str

    @property
    def is_trainable(self) -> bool:
        """Whether training changes any of its variables."""
        return self.layer.trainable and any(each.trainable for each in self.variables.values())


def list_layers(network: keras.Model) -> list[WeightedLayer]:
    """Return the layers with weights, from the input to the output."""
    return list(_walk(network, ""))


def list_blocks(network: keras.Model) -> list[list[WeightedLayer]]:
    """Return the blocks of layers, from the input to the head, which is the last one.

    The head is what follows the base or, in a network without one, the last layer.
    """
    layers = list_layers(network)
    base = [each for each in layers if each.name.split("/")[0] == BASE] or layers
    below_head = {each.name for each in base if each is not layers[-1]}
    blocks: dict[str, list[WeightedLayer]] = {}
    for each in layers:
        if each.name in below_head:
            blocks.setdefault(each.block, []).append(each)
    return [*blocks.values(), [each for each in layers if each.name not in below_head]]


def select_layers(
    layers: Sequence[WeightedLayer], scopes: Iterable[str], setting: str
) -> list[WeightedLayer]:
    """Return the layers that any of the scopes names.

    Args:
        layers: The layers to choose from.
        scopes: Beginnings of names, up to the end of a word; `*` stands for anything, and `base/`
            may be omitted.
        setting: The setting with these scopes, for the message.

    Raises:
        SettingsError: A scope names no layer.
    """
    found = []
    for scope in scopes:
        pattern = ".*".join(map(re.escape, scope.split("*")))
        matches = re.compile(rf"(?:{BASE}/)?{pattern}(?![0-9A-Za-z])").match
        named = [each for each in layers if matches(each.name)]
        if not named:
            names = [each.name.removeprefix(f"{BASE}/") for each in layers]
            hint = did_you_mean(scope, names, "run.py describe lists them")
            raise SettingsError(f"{setting}: no layer with weights is called {scope!r}{hint}")
        found.extend(named)
    selected = {each.name for each in found}
    return [each for each in layers if each.name in selected]


def train_only(network: keras.Model, layers: Iterable[WeightedLayer]) -> None:
    """Make these layers of the network trainable, and freeze all others."""
    names = {each.name for each in layers}
    sublayers = network._flatten_layers(include_self=False)
    containers = [each for each in sublayers if isinstance(each, keras.Model)]
    for container in containers:
        container.trainable = True
    found = list_layers(network)
    # A TF-Hub module is one Keras layer with several of these.
    trained = {id(each.layer) for each in found if each.name in names}
    for each in found:
        each.layer.trainable = id(each.layer) in trained
    for variable in (v for e in found if e.name not in names for v in e.variables.values()):
        variable.trainable = False
    for container in containers:
        if not any(each.trainable for each in container.layers if each.weights):
            container.trainable = False


def _walk(model: keras.Model, prefix: str) -> Iterator[WeightedLayer]:
    naming = _BlockNames(prefix)
    for name, layer in _inner_layers(model.layers):
        path = f"{prefix}{name}"
        if isinstance(layer, _MERGES):
            naming.merge(name)
        if isinstance(layer, keras.Model):
            yield from _walk(layer, f"{path}/")
            continue
        own_naming = _BlockNames(f"{path}/") if isinstance(layer, HubLayer) else naming
        for scope, found in _variables_by_scope(layer).items():
            names, numbers, variables = zip(*found, strict=True)
            by_name = dict(zip(unique_names(names), variables, strict=True))
            numbered = tuple((path, number) for number in numbers)
            block = own_naming.of(scope or name)
            where = f"{path}/{scope}" if scope else path
            yield WeightedLayer(where, layer, by_name, numbered, block)


def _inner_layers(
    layers: Iterable[keras.layers.Layer], prefix: str = ""
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield each layer by its path, or the layers inside it if these are the blocks of a network.

    Transformers of keras-hub have all of their blocks in one layer.
    """
    for layer in layers:
        inside = layer._flatten_layers(include_self=False)
        is_whole = isinstance(layer, keras.Model) or _own_variables_of(layer)
        if not is_whole and any(_block_in(each.name) for each in inside):
            yield from _inner_layers(layer._layers, f"{prefix}{layer.name}/")
        else:
            yield f"{prefix}{layer.name}", layer


# (name, numbered name, variable), both names relative to the layer: for an attention layer,
# `query/kernel` and `query/0`.
_OwnVariable = tuple[str, str, keras.Variable]


def _variables_by_scope(layer: keras.layers.Layer) -> dict[str, list[_OwnVariable]]:
    """Return the variables of a TF-Hub module by their scopes, or of another layer under ""."""
    if not isinstance(layer, HubLayer):
        # By identity, because layers may share variables.
        found = {id(each[-1]): each for each in _own_variables(layer)}
        return {"": [*found.values()]} if found else {}
    scopes: dict[str, list[_OwnVariable]] = {}
    for number, (path, variable) in enumerate(layer.named_variables.items()):
        scope, _, name = path.rpartition("/")
        scopes.setdefault(scope, []).append((name, str(number), variable))
    return scopes


def _own_variables(layer: keras.layers.Layer, prefix: str = "") -> Iterator[_OwnVariable]:
    """Yield the variables of a layer and of the layers inside it."""
    for number, each in enumerate(_own_variables_of(layer)):
        yield f"{prefix}{each.name}", f"{prefix}{number}", each
    for inner in layer._layers:
        yield from _own_variables(inner, f"{prefix}{inner.name}/")


def _own_variables_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


class _BlockNames:
    """The blocks that layers' names tell; layers without one, between two of these, are a block."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._run = 0
        # {block in a layer's name: its name here}
        self._named: dict[str, str] = {}
        self._merged: str | None = None

    def of(self, layer_name: str) -> str:
        block, run = _block_in(layer_name), f"{self._prefix}{self._run}"
        if block is None:
            return run
        # Unnamed branches that a named layer merges belong to the block of that name.
        self._named.setdefault(block, run if block == self._merged else block)
        self._run += 1
        return self._named[block]

    def merge(self, layer_name: str) -> None:
        self._merged = _block_in(layer_name)
        if self._merged is None or self._merged in self._named:
            self._run += 1


def _block_in(layer_name: str) -> str | None:
    match = _BLOCK.match(layer_name)
    return match[0] if match else None
