"""A network as a list of named parts, each of which can be frozen, loaded and given a rate.

A part is a layer with weights, by its name (`base/block_16_project`, `scores`), or the variables of
a TF-Hub module that share a scope. Parts form blocks, from the network's input to its head.
"""

import re
from dataclasses import dataclass

import keras

from library.errors import SettingsError
from library.messages import nearest
from library.models.hub_layer import HubLayer
from library.models.saved_model import unique_names

# The name of the pretrained part of a network: a nested model, or a HubLayer.
BASE = "base"
# What the names of a block's layers begin with: block_16_project, conv5_block3_1_conv, block6a_bn;
# block35_7_conv: of the blocks called 35 the seventh.
_BLOCK = re.compile(
    r".*?(?:(?<![^/])block\d+_\d+(?![a-z0-9])"
    r"|(?:blocks?|expanded_conv|conv_[dp]w)_?\d+[a-z]?(?![a-z]))"
)
_MERGES = (keras.layers.Add, keras.layers.Concatenate)


@dataclass(frozen=True, eq=False)
class Part:
    """A layer with weights, or some variables of a TF-Hub module."""

    name: str
    layer: keras.layers.Layer
    # {name within the part: Keras variable}
    variables: dict
    # Their names in files that number the variables of a layer: (layer, name within it).
    numbered: tuple
    # The same for all parts of a block.
    block: str

    @property
    def is_trained(self):
        """Whether training changes any of it."""
        return self.layer.trainable and any(each.trainable for each in self.variables.values())

    @property
    def is_base(self):
        """Whether it belongs to the pretrained part of the network."""
        return self.name.split("/")[0] == BASE


def list_layers(network):
    """Return the Parts of a network, from its input to its output."""
    return list(_parts(network, ""))


def list_blocks(network):
    """Return lists of Parts, from the input to the head, which is the last of them.

    The head is what follows the base or, in a network without one, the last layer.
    """
    parts = list_layers(network)
    has_base = any(each.is_base for each in parts)
    blocks, head = {}, []
    for part in parts:
        is_head = (has_base and not part.is_base) or part is parts[-1]
        (head if is_head else blocks.setdefault(part.block, [])).append(part)
    return [*blocks.values(), head]


def select_layers(parts, scopes, key):
    """Return the Parts that any of the scopes names.

    A scope is the beginning of a name, up to the end of a word in it; `*` stands for anything.
    `base/` may be left out. Raises SettingsError about `key` if a scope names none.
    """
    found = []
    for scope in scopes:
        pattern = ".*".join(map(re.escape, scope.split("*")))
        matches = re.compile(rf"(?:{BASE}/)?{pattern}(?![0-9A-Za-z])").match
        named = [each for each in parts if matches(each.name)]
        if not named:
            close = nearest(scope, [each.name.removeprefix(f"{BASE}/") for each in parts])
            hint = f"; did you mean {close!r}?" if close else " (run.py describe lists them)"
            raise SettingsError(f"{key}: no layer with weights is called {scope!r}{hint}")
        found.extend(named)
    names = {each.name for each in found}
    return [each for each in parts if each.name in names]


def train_only(network, parts):
    """Let training change these Parts of the network, and nothing else."""
    trained = {each.name for each in parts}
    containers = _containers(network)
    for container in containers:
        container.trainable = True
    for layer, own in _parts_by_layer(network):
        layer.trainable = any(each.name in trained for each in own)
        for variable in (v for p in own if p.name not in trained for v in p.variables.values()):
            variable.trainable = False
    for container in containers:
        if not any(each.trainable for each in container.layers if each.weights):
            container.trainable = False


def _parts(model, prefix):
    naming = _Blocks(prefix)
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        if isinstance(layer, _MERGES):
            naming.merge(layer.name)
        if isinstance(layer, keras.Model):
            yield from _parts(layer, f"{name}/")
        elif isinstance(layer, HubLayer):
            yield from _module_parts(layer, name)
        elif layer.weights:
            # Each once, as layers may share some.
            found = {id(each[-1]): each for each in _weights(layer)}.values()
            names, numbers, variables = zip(*found, strict=True)
            variables = dict(zip(unique_names(names), variables, strict=True))
            numbered = tuple((name, number) for number in numbers)
            yield Part(name, layer, variables, numbered, naming.of(layer.name))


def _weights(layer, prefix=""):
    """Yield (name, numbered name, variable) of a layer's own weights and of the layers inside it.

    Both names are those within the layer: of attention `query/kernel` and `query/0`.
    """
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    for number, each in enumerate(own):
        yield f"{prefix}{each.name}", f"{prefix}{number}", each
    for inside in layer._layers:
        yield from _weights(inside, f"{prefix}{inside.name}/")


def _module_parts(layer, name):
    naming, scopes = _Blocks(f"{name}/"), {}
    for number, (path, variable) in enumerate(layer.named_variables.items()):
        scope, _, short = path.rpartition("/")
        scopes.setdefault(scope, {})[short] = ((name, str(number)), variable)
    for scope, found in scopes.items():
        variables = {short: variable for short, (_, variable) in found.items()}
        numbered = tuple(numbered for numbered, _ in found.values())
        yield Part(f"{name}/{scope}".rstrip("/"), layer, variables, numbered, naming.of(scope))


class _Blocks:
    """The blocks that names tell; what no name tells, between two of those, is one block too."""

    def __init__(self, prefix):
        self._prefix = prefix
        self._run = 0
        # {block that a name tells: what it is called here}
        self._named = {}
        self._merged = None

    def of(self, name):
        block, run = _block_in(name), f"{self._prefix}{self._run}"
        if block is None:
            return run
        # Branches without names, merged by a layer with a name, are of the block that it tells.
        self._named.setdefault(block, run if block == self._merged else block)
        self._run += 1
        return self._named[block]

    def merge(self, name):
        self._merged = _block_in(name)
        if self._merged is None or self._merged in self._named:
            self._run += 1


def _block_in(name):
    match = _BLOCK.match(name)
    return match and match[0]


def _containers(model):
    inner = [each for each in model.layers if isinstance(each, keras.Model)]
    return [*inner, *(each for model in inner for each in _containers(model))]


def _parts_by_layer(network):
    found = {}
    for part in list_layers(network):
        found.setdefault(id(part.layer), (part.layer, []))[1].append(part)
    return list(found.values())
