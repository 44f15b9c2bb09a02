"""What training changes: by scope, in stages over the epochs, and how fast each block."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import keras

from library.errors import SettingsError
from library.messages import counted
from library.models.blocks import list_blocks, list_layers, select_layers, train_only


def freeze_layers(
    network: keras.Model, trainable_scopes: Sequence[str] = (), freeze: Sequence[str] = ()
) -> None:
    """Choose by name which layers are trained; without scopes, leave the network as it is.

    Args:
        network: The network, whose layers it makes trainable or not.
        trainable_scopes: Train only these layers, if any; see `select_layers`.
        freeze: Freeze these layers.

    Raises:
        SettingsError: A scope names no layer, or none that can be trained, or no trainable layer
            remains.
    """
    layers = list_layers(network)
    trained = [each for each in layers if each.is_trainable]
    if trainable_scopes:
        trained = select_layers(layers, trainable_scopes, "trainable_scopes")
        train_only(network, trained)
    for scope in trainable_scopes:
        named = select_layers(layers, [scope], "trainable_scopes")
        if not any(each.is_trainable for each in named):
            raise SettingsError(
                f"trainable_scopes: {scope!r} cannot be trained, like all modules in the format of "
                "TensorFlow 1"
            )
    frozen = {each.name for each in select_layers(layers, freeze, "freeze")}
    if frozen:
        train_only(network, [each for each in trained if each.name not in frozen])
    if not network.trainable_variables:
        raise SettingsError("freeze and trainable_scopes leave no layer to train")


def infer_while_frozen(base: keras.Model) -> None:
    """Make a nested network run in inference mode as long as none of it is trainable.

    In frozen layers Keras stops BatchNormalization, but not dropout: the head would be trained on
    other features than it gets afterwards.
    """
    call = base.call

    def call_in_mode(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return call(inputs, training=training and bool(base.trainable_variables), mask=mask)

    # A subclass would be part of the saved model, which could then be loaded only with this
    # package. test_keras_drops_out_in_frozen_models tells when Keras needs this no longer.
    base.call = call_in_mode


class Unfreezing:
    """Gradual unfreezing: train the head first, from certain epochs also the base's top blocks.

    What the network does not train when this is made stays frozen. A block is frozen again if a
    later stage names fewer.
    """

    def __init__(self, network: keras.Model, stages: Iterable[str]) -> None:
        """Parse the stages.

        Args:
            network: The network.
            stages: Words such as `3=2` (two blocks from the fourth epoch on) and `6=all`.

        Raises:
            SettingsError: A word has another form, or the base is not trainable.
        """
        self.network = network
        self.stages = sorted(_parse_stage(word) for word in stages)
        for (start, _), (other, _) in pairwise(self.stages):
            if start == other:
                raise SettingsError(f"unfreezing: two stages start at epoch {start}; remove one")
        self.blocks = [[e for e in block if e.is_trainable] for block in list_blocks(network)]
        if not any(self.blocks[:-1]):
            raise SettingsError("unfreezing: the base is not trainable; add --fine_tuning")
        self._current: int | None = None
        # The epoch, counted from 0, from which on any block below the head is trained.
        self.first_epoch = min((start for start, blocks in self.stages if blocks), default=math.inf)

    def apply(self, epoch: int) -> str | None:
        """Freeze and unfreeze for an epoch, counted from 0.

        Returns:
            A line for the log, or None if nothing changes.
        """
        counts = [0, *(blocks for start, blocks in self.stages if start <= epoch)]
        count = int(min(counts[-1], len(self.blocks) - 1))
        if count == self._current:
            return None
        self._current = count
        trained = [each for block in self.blocks[-1 - count :] for each in block]
        train_only(self.network, trained)
        what = f"and the top {count} of {len(self.blocks) - 1} blocks" if count else "only"
        return f"epoch {epoch + 1}: training the head {what} ({counted(len(trained), 'layer')})"


def layer_rate_factors(
    network: keras.Model, decay: float, head_factor: float = 1.0
) -> list[tuple[keras.Variable, float]]:
    """Return each variable's learning-rate factor: `decay` in the top block, its square below, ….

    Args:
        network: The network, whose blocks are those of `list_blocks`.
        decay: Factor from each block to the block below it, in (0, 1].
        head_factor: The factor of the head, which is the last block.

    Returns:
        (variable, factor) pairs; none if all factors are 1.
    """
    if decay == head_factor == 1:
        return []
    return [
        (variable, decay**depth if depth else head_factor)
        for depth, block in enumerate(reversed(list_blocks(network)))
        for layer in block
        for variable in layer.variables.values()
    ]


class _LayerwiseRates(keras.optimizers.Optimizer):
    """A mixin for Keras's optimizers, which have one learning rate only (keras issue 21741)."""

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
    scaled: Any = type(kind.__name__, (_LayerwiseRates, kind), members)
    return scaled.from_config({**optimizer.get_config(), "learning_rate": learning_rate})


def _parse_stage(word: str) -> tuple[int, float]:
    """Return the epoch, and the number of blocks: infinity for all."""
    if match := re.fullmatch(r"\s*(\d+)\s*=\s*(\d+|all)\s*", word):
        start, blocks = match.groups()
        return int(start), math.inf if blocks == "all" else int(blocks)
    raise SettingsError(
        f"unfreezing: {word!r} must be an epoch and a number of top blocks to train from then on, "
        "such as 3=2 or 6=all"
    )
