"""The best so far by the goal: asked first, saved next, remembered last; kept across restarts."""

from library.errors import CheckpointError
from library.models.scores import is_multi_label
from library.saving import snapshots
from library.saving.checkpoints import check_classes, check_multi_label
from library.training.ema import holding, values_of


class BestSnapshot:
    """The best snapshot of a run. `metrics` is what its metrics.json says, or None."""

    def __init__(self, paths, goal, devices):
        self._keeping = paths
        self._goal = goal
        self._devices = devices
        self.metrics = None
        # (metrics, variables, their values) of the best, where it is not on disk yet.
        self._waiting = None

    def check_stored(self, network, measure):
        """Evaluate the stored one again: a restart must not lose it to something worse.

        `measure` gives the validation metrics of the network it is called with. Returns one line to
        tell, or None where nothing is stored, nor ever was. Raises CheckpointError for another
        run's.
        """
        folder, metric = self._keeping.best, self._goal.metric
        if not self._devices.chief_first(self._find):
            gone, self.metrics = self.metrics, None
            return gone and f"the best, of epoch {gone['epoch']}, is no longer in {folder}"
        with self._devices.strategy.scope():
            stored = snapshots.read_snapshot(folder)
        check_classes(folder, stored.classes, self._keeping.classes)
        check_multi_label(folder, is_multi_label(stored.network), is_multi_label(network))
        if stored.network.input_shape != network.input_shape:
            raise CheckpointError(
                f"the snapshot in {folder} takes images of shape {stored.network.input_shape[1:]}, "
                f"this run {network.input_shape[1:]}: choose another --run_dir"
            )
        validation = measure(stored.network)
        self.metrics = {**stored.metrics, **self._monitored(validation)}
        epoch = stored.metrics["epoch"]
        value = validation[metric]
        return f"best so far, in {folder}: validation {metric} {value:.4f} (epoch {epoch})"

    def keep(self, network, epoch, step, validation, variables=None):
        """Save a snapshot if it is the best so far. Say whether it is.

        With `variables`, those that training changes, their values are only remembered: what
        `write` then saves. For where saving takes longer than training does.
        """
        goal = self._goal
        best = self.metrics["value"] if self.metrics else None
        if not goal.is_better(validation[goal.metric], best):
            return False
        metrics = {"epoch": epoch, "step": step, **self._monitored(validation)}
        if variables is None:
            self._save(network, metrics)
        else:
            self._waiting = (metrics, variables, values_of(variables))
        # Last: a crash while saving keeps the old best.
        self.metrics = metrics
        return True

    def write(self, network):
        """Save the snapshot of what `keep` only remembered, if there is any."""
        if self._waiting:
            metrics, *remembered = self._waiting
            with holding(*remembered):
                self._save(network, metrics)
            self._waiting = None

    def _find(self):
        if self._devices.is_chief:
            snapshots.repair_snapshot(self._keeping.best)
        return snapshots.has_snapshot(self._keeping.best)

    def _save(self, network, metrics):
        paths = self._keeping
        if self._devices.is_chief:
            snapshots.write_snapshot(paths.best, network, paths.classes, metrics, paths.texts)

    def _monitored(self, validation):
        metric = self._goal.metric
        monitored = {"monitored": f"validation {metric}", "value": validation[metric]}
        return {**monitored, "validation": validation}
