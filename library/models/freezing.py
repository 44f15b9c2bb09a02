"""What training changes: by scope, in stages over the epochs, and how fast each block."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import keras

from library.errors import SettingsError
from library.messages import counted
from library.models.blocks import list_blocks, list_layers, select_layers, train_only


def freeze_parts(network, trainable_scopes=(), freeze=()):
    """Train only what `trainable_scopes` names, if any, and nothing that `freeze` names.

    Without them, what the network itself trains stays so. Scopes are those of `select_layers`.
    Raises SettingsError for a scope that names no layer, or none that can be trained, and if
    nothing is left to train.
    """
    parts = list_layers(network)
    if trainable_scopes:
        trained = select_layers(parts, trainable_scopes, "trainable_scopes")
        train_only(network, trained)
        _check_trained(parts, trainable_scopes)
    else:
        trained = [each for each in parts if each.is_trained]
    frozen = {each.name for each in select_layers(parts, freeze, "freeze")}
    trained = [each for each in trained if each.name not in frozen]
    if trainable_scopes or freeze:
        train_only(network, trained)
    if not network.trainable_variables:
        raise SettingsError("nothing is left to train: freeze and trainable_scopes leave no layer")


def _check_trained(parts, scopes):
    for scope in scopes:
        if not any(each.is_trained for each in select_layers(parts, [scope], "trainable_scopes")):
            raise SettingsError(
                f"trainable_scopes: nothing in {scope!r} can be trained, as in all modules in the "
                "format of TensorFlow 1"
            )


def infer_while_frozen(base):
    """Make a nested network run in inference mode as long as none of it is trained.

    Keras lets frozen BatchNormalization rest, but frozen layers drop out features all the same:
    what the head trains on would then not be what it is given afterwards.
    """
    call = base.call

    def call_in_its_mode(inputs, training=None, mask=None):
        return call(inputs, training=training and bool(base.trainable_variables), mask=mask)

    # Of this object alone: saved and loaded, it is a network as any other.
    base.call = call_in_its_mode


class Unfreezing:
    """Training the head first, and from certain epochs on the top blocks of the base too.

    `stages` are words such as `3=2` (from the fourth epoch on, the top two blocks) and `6=all`.
    A block is frozen again where a stage names fewer. What the network does not train when this is
    made, is never trained. Raises SettingsError for words that say something else.
    """

    def __init__(self, network, stages):
        self.network = network
        self.stages = sorted(_stage(word) for word in stages)
        for (start, _), (other, _) in pairwise(self.stages):
            if start == other:
                raise SettingsError(f"unfreezing: two stages begin with epoch {start}, leave one")
        self.blocks = [[p for p in block if p.is_trained] for block in list_blocks(network)]
        if not any(self.blocks[:-1]):
            raise SettingsError("unfreezing: the base is frozen for good; add --fine_tuning")
        self._now = None

    def block_count(self, epoch):
        """Return how many blocks below the head are trained in an epoch, numbered from 0."""
        count = 0
        for start, blocks in self.stages:
            if epoch >= start:
                count = blocks
        return min(count, len(self.blocks) - 1)

    def apply(self, epoch):
        """Freeze and unfreeze for an epoch. Give a line about the change, or None without one."""
        count = self.block_count(epoch)
        if count == self._now:
            return None
        self._now = count
        trained = [each for block in self.blocks[-1 - count :] for each in block]
        train_only(self.network, trained)
        what = f" and the top {count} of {len(self.blocks) - 1} blocks" if count else " alone"
        layers = counted(len(trained), "layer")
        return f"epoch {epoch + 1}: training the head{what}, {layers}"


def layer_rate_factors(network: keras.Model, decay: float) -> list[tuple[keras.Variable, float]]:
    """Return each variable's learning-rate factor: 1 in the head, `decay` one block below, ….

    Args:
        network: The network, whose blocks are those of `list_blocks`.
        decay: Factor from each block to the block below it, in (0, 1].

    Returns:
        (variable, factor) pairs.
    """
    return [
        (variable, decay**depth)
        for depth, block in enumerate(reversed(list_blocks(network)))
        for part in block
        for variable in part.variables.values()
    ]


class _LayerwiseRates:
    """A mixin for Keras optimizers, which have one learning rate (keras issue 21741)."""

    rate_factors: dict[str, float]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self.rate_factors.get(self._var_key(variable), 1.0)
        super().update_step(gradient, variable, learning_rate * factor)


def with_layer_rates(
    optimizer: keras.optimizers.Optimizer,
    learning_rate: Any,
    factors: Iterable[tuple[keras.Variable, float]],
) -> keras.optimizers.Optimizer:
    """Return an optimizer that multiplies the learning rate by a factor of each variable.

    Scaling the gradients instead would have no effect with Adam, which divides by their size.
    Decoupled weight decay is not scaled.

    Args:
        optimizer: An optimizer that is not built yet; only its class and options are used.
        learning_rate: A float or a Keras schedule.
        factors: (variable, factor) pairs; other variables have the factor 1.

    Returns:
        An optimizer of a subclass with the same name.
    """
    kind = type(optimizer)
    members = {"rate_factors": {optimizer._var_key(each): factor for each, factor in factors}}
    scaled = type(kind.__name__, (_LayerwiseRates, kind), members)
    return scaled.from_config({**optimizer.get_config(), "learning_rate": learning_rate})


def _stage(word):
    start, _, blocks = word.partition("=")
    try:
        count = 10**6 if blocks.strip() == "all" else int(blocks)
        if int(start) >= 0 and count >= 0:
            return int(start), count
    except ValueError:
        pass
    raise SettingsError(
        f"unfreezing: {word!r} must be an epoch and how many of the top blocks to train "
        "from it on, such as 3=2 or 6=all"
    )
