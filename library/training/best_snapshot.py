"""The best snapshot of a run: compared first, saved next, remembered last."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from library.errors import CheckpointError
from library.inputs.aspect_ratio import SQUEEZED
from library.models.scores import is_multi_label
from library.saving import snapshots
from library.saving.checkpoints import check_classes, check_multi_label
from library.training.distribution import Devices
from library.training.early_stopping import Monitor
from library.training.ema import temporary_values, values_of
from library.training.parts import Parts
from library.training.plan import RunPaths
from library.training.train_state import TrainState

logger = logging.getLogger(__name__)


class BestSnapshot:
    """Saves a network whenever the monitored metric of the validation split improves."""

    def __init__(self, parts: Parts, paths: RunPaths, monitor: Monitor, devices: Devices) -> None:
        self._network, self._cached = parts.network, parts.cached_features
        self._paths = paths
        self._monitor = monitor
        self._devices = devices
        # (metrics, values of the head) of the best network, if it is not on disk yet.
        self._pending: tuple[dict[str, Any], list[np.ndarray]] | None = None
        # The values of the head of the best network, unless an earlier process found it.
        self.head_values: list[np.ndarray] | None = None

    def evaluate_stored(
        self, state: TrainState, evaluate: Callable[[keras.Model], Mapping[str, float]]
    ) -> None:
        """Evaluate the snapshot on disk, so that nothing worse replaces it after a restart.

        Args:
            state: Gets the metrics of the snapshot as `best`, or None if there is none.
            evaluate: Returns the validation metrics of a network.

        Raises:
            CheckpointError: The snapshot is that of another run.
        """
        folder, metric, network = self._paths.best, self._monitor.metric, self._network
        if not self._devices.chief_first(self._find):
            if state.best:
                epoch = state.best["epoch"]
                logger.warning(f"The best snapshot, of epoch {epoch}, is missing in {folder}")
            state.best = None
            return
        with self._devices.strategy.scope():
            stored = snapshots.read_snapshot(folder)
        check_classes(folder, stored.classes, self._paths.classes)
        check_multi_label(folder, is_multi_label(stored.network), is_multi_label(network))
        if stored.network.input_shape != network.input_shape:
            raise CheckpointError(
                f"the snapshot in {folder} takes images of shape {stored.network.input_shape[1:]}, "
                f"this run {network.input_shape[1:]}: choose another --run_dir"
            )
        data = json.loads(self._paths.texts.get(snapshots.DATA, "{}"))
        if data and stored.data.get("fit", SQUEEZED.to_json()) != data["fit"]:
            raise CheckpointError(
                f"the snapshot in {folder} has another fit or crop_fraction than this run: choose "
                "another --run_dir"
            )
        if data and stored.data.get("fingerprint") not in (None, data["fingerprint"]):
            logger.warning(
                f"the snapshot in {folder} was trained on another training split: images of the "
                "validation split may be among those that it learned, and its metrics too good; "
                "start over with --resume never, or with another --run_dir"
            )
        validation = evaluate(stored.network)
        epoch, value = stored.metrics["epoch"], validation[metric]
        logger.info(f"Best so far: validation {metric} {value:.4f} (epoch {epoch}), in {folder}")
        state.best = {**stored.metrics, **self._monitored(validation)}

    def save_if_better(self, state: TrainState, validation: Mapping[str, float]) -> bool:
        """Save the network, with its values now, if it is the best so far.

        With cached features, saving would take longer than training does, so the values are only
        remembered until `save_pending`.

        Args:
            state: Where the run is; gets the metrics as `best`.
            validation: The metrics of the network.

        Returns:
            Whether the network is the best so far.
        """
        best = state.best and {
            **state.best["validation"],
            self._monitor.metric: state.best["value"],
        }
        if not self._monitor.is_best(validation, best):
            return False
        metrics = {"epoch": state.last_epoch, "step": state.step, **self._monitored(validation)}
        if self._cached:
            self.head_values = values_of(self._cached.head.variables)
            self._pending = (metrics, self.head_values)
        else:
            self._write(metrics)
        # Remembered only now: a crash while saving leaves the old best.
        state.best = metrics
        return True

    def save_pending(self) -> None:
        """Save the network that `save_if_better` only remembered, if there is one."""
        if self._pending and self._cached:
            metrics, values = self._pending
            with temporary_values(self._cached.head.variables, values):
                self._write(metrics)
            self._pending = None

    def save_at_once(self) -> None:
        """From now on, save each best network at once: its base is about to change."""
        self.save_pending()
        self._cached = None

    def _find(self) -> bool:
        if self._devices.is_chief:
            snapshots.repair_snapshot(self._paths.best)
        return snapshots.has_snapshot(self._paths.best)

    def _write(self, metrics: dict[str, Any]) -> None:
        paths = self._paths
        if self._devices.is_chief:
            snapshots.write_snapshot(paths.best, self._network, paths.classes, metrics, paths.texts)

    def _monitored(self, validation: Mapping[str, float]) -> dict[str, Any]:
        metric = self._monitor.metric
        return {
            "monitored": f"validation {metric}",
            "value": validation[metric],
            "validation": validation,
        }
