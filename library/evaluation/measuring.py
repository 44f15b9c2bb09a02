"""Means of loss and metrics over a whole split."""

import itertools

from library.training.distribution import Devices
from library.training.steps import Totals, make_evaluation_step


class Evaluator:
    """Measures one network, as often as asked; the step is compiled once."""

    def __init__(self, network, objective, devices=None, *, xla=False):
        strategy = (devices or Devices()).strategy
        with strategy.scope():
            self._totals = Totals(objective.names)
        self._step = make_evaluation_step(
            network, objective, self._totals, strategy=strategy, xla=xla
        )

    def measure(self, batches, max_steps=None):
        """Give name → mean over every example of (images, labels) batches, and how many there were.

        Each example counts once, those of a partial last batch too. With several replicas, batches
        are as Devices.divide gives them. `max_steps` stops earlier.
        """
        self._totals.reset()
        for images, labels in itertools.islice(batches, max_steps):
            self._step(images, labels)
        return self._totals.means(), self._totals.examples
