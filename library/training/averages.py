"""Exponential moving averages of the weights: what is evaluated and kept, not what is trained."""

import contextlib


@contextlib.contextmanager
def averaged_weights(network, optimizer):
    """Within the block the network has its averaged weights; afterwards its own again.

    Does nothing where the optimizer keeps no averages (Keras's `use_ema`).
    """
    # A loss-scaling optimizer wraps the one that keeps the averages.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema:
        yield
        return
    weights = network.trainable_variables
    averages = optimizer._model_variables_moving_average
    own = [weight.numpy() for weight in weights]
    try:
        for weight, average in zip(weights, averages, strict=True):
            weight.assign(average)
        yield
    finally:
        for weight, value in zip(weights, own, strict=True):
            weight.assign(value)
