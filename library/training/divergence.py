"""Checks that a training has not diverged: NaN and infinity stop it and are never saved."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from library.errors import DivergedError

# Returns the learning rate of a step that was made.
LearningRateAt = Callable[[int], float]


def check_losses(losses: Any, last_step: int, learning_rate_at: LearningRateAt) -> None:
    """Raise DivergedError if one of these losses, of the steps up to `last_step`, is not finite."""
    losses = np.asarray(losses)
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        step = last_step - len(losses) + int(wrong[0]) + 1
        raise _diverged(f"the loss is {losses[wrong[0]]} at step {step}", learning_rate_at(step))


def check_validation_loss(loss: float, step: int, learning_rate_at: LearningRateAt) -> None:
    """Raise DivergedError if the validation loss after `step` is not finite."""
    # The training loss of a step does not show this yet: it is that of the weights before it.
    if not np.isfinite(loss):
        raise _diverged(f"the validation loss is {loss} after step {step}", learning_rate_at(step))


def check_state(
    weights: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    step: int,
    learning_rate_at: LearningRateAt,
) -> None:
    """Raise DivergedError if no learning rate, however small, could train from this state.

    Args:
        weights: Values of the network's variables.
        others: Values of all other variables of a checkpoint.
        step: The step they are the state after.
        learning_rate_at: Returns the learning rate of a step.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # A value whose square overflows gives an infinite loss in the next step, by L2 or by
        # normalization.
        values = chain(map(np.square, weights), others)
        is_sound = all(np.isfinite(each).all() for each in values)
    if not is_sound:
        raise _diverged(f"weights are NaN or too large after step {step}", learning_rate_at(step))


def check_best(best: dict[str, Any] | None, metric: str) -> dict[str, Any]:
    """Return the best snapshot's metrics. Raise DivergedError if each evaluation gave NaN."""
    if best is None:
        raise DivergedError(
            f"there is no best snapshot, because validation {metric} was NaN in each evaluation: "
            "try a smaller --learning_rate and --resume never"
        )
    return best


def _diverged(what: str, learning_rate: float) -> DivergedError:
    return DivergedError(
        f"{what}, learning rate {learning_rate:g}: try a smaller --learning_rate; the best "
        "snapshot and the last checkpoint are unchanged"
    )
