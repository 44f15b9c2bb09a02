"""Has a training diverged? What is no number is never gone on with, and never kept."""

from itertools import chain

import numpy as np

from library.errors import DivergedError


def check_losses(losses, last_step, learning_rate_at):
    """Raise DivergedError if one of these losses, of the steps up to `last_step`, is no number.

    `learning_rate_at` is a function that gives the learning rate of a step.
    """
    losses = np.asarray(losses)
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        step = last_step - len(losses) + int(wrong[0]) + 1
        raise _diverged(f"the loss is {losses[wrong[0]]} at step {step}", learning_rate_at(step))


def check_validation(validation, step, learning_rate_at):
    """Raise DivergedError if the validation loss after `step` is no number."""
    # The training loss of a step is that of the weights before it.
    if not np.isfinite(validation["loss"]):
        raise _diverged(
            f"the validation loss is {validation['loss']} after step {step}", learning_rate_at(step)
        )


def check_state(weights, others, step, learning_rate_at):
    """Raise DivergedError if what a checkpoint after `step` would keep leads nowhere.

    Takes two lists of arrays. From such a checkpoint no learning rate, however small, goes on.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Whose squares overflow gives an infinite loss in the next step: by L2, by normalization.
        values = chain(map(np.square, weights), others)
        is_sound = all(np.isfinite(each).all() for each in values)
    if not is_sound:
        raise _diverged(
            f"weights are too large, or no numbers, after step {step}", learning_rate_at(step)
        )


def check_best(best, metric):
    """Raise DivergedError if there is no best, as no evaluation gave a number to tell it by."""
    if best is None:
        raise DivergedError(
            f"no evaluation gave a validation {metric} that is a number, so there is no best: try "
            "a smaller --learning_rate and --resume never"
        )


def _diverged(what, rate):
    return DivergedError(
        f"{what}, learning rate {rate:g}: try a smaller --learning_rate; the best and the last "
        "checkpoint are kept"
    )
