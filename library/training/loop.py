"""The training loop: epochs, evaluation, the best kept, the latest saved. Reads top to bottom."""

import contextlib
import math

import numpy as np
import tensorflow as tf

from library.errors import CheckpointError, DataError, DivergedError
from library.evaluation.measuring import Evaluator
from library.evaluation.probabilities import is_multi_label
from library.training import snapshots
from library.training.checkpoints import (
    Checkpoints,
    check_classes,
    check_kind,
    read_state,
    read_variables,
)
from library.training.distribution import Devices, naming_lost
from library.training.history import History, Progress, report
from library.training.monitoring import Goal, Patience
from library.training.run_folder import check_space
from library.training.steps import Totals, make_train_steps
from library.training.stopping import StopSignals


class Training:
    """One run, from wherever it stopped to its end.

    `training` and `validation` are as TrainingInputs and EvaluationInputs in project/inputs.py.
    `learning_rate` is the schedule inside the optimizer, as LearningRate in project/schedules.py;
    `averages` is Averages, or None where the weights themselves are evaluated and kept.
    `unfreezing`, as in library/transfer/freezing.py, says what is trained from which epoch on;
    `kept`, as in library/transfer/features.py, has inputs that spare running the frozen base.
    """

    def __init__(
        self,
        network,
        objective,
        optimizer,
        learning_rate,
        averages,
        training,
        validation,
        plan,
        keeping,
        *,
        unfreezing=None,
        kept=None,
        devices=None,
        xla=False,
    ):
        self.network = network
        self.objective = objective
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.averages = averages
        self.training = training
        self.validation = validation
        self.plan = plan
        self.keeping = keeping
        self.unfreezing = unfreezing
        # What the steps see: images and the whole network, or features and its head.
        self.seen = kept or self
        self.head = kept.head if kept else network
        self.devices = devices or Devices()
        # Only the chief speaks and writes; all workers do the rest alike.
        self.report = report if self.devices.is_chief else lambda text: None
        with self.devices.strategy.scope():
            self.totals = Totals(objective.names)
            # For all that any epoch trains: before `unfreezing` freezes what comes later.
            optimizer.build(network.trainable_variables)
        self.devices.spread_seeds(network)
        self.xla = xla
        self.train_steps = self._compile()
        self.evaluator = Evaluator(self.head, objective, self.devices, xla=xla)
        self.average_statistics = self.devices.make_averaging(network)
        self.checkpoints = Checkpoints(keeping.checkpoints, plan.keep_checkpoint_max)
        self.total_steps = plan.total_steps(training.batches_per_epoch)
        self.stopping = None
        # Where the run is: the epoch and the batch within it that come next.
        self.step = self.epoch = self.batch = 0
        self.best = None  # the metrics.json of the best snapshot
        self.patience = Patience(plan.goal)
        self.rows = []
        self.seconds = 0.0  # spent in earlier processes

    def _compile(self):
        """Give the steps, for what is trained now."""
        parts = (self.head, self.objective, self.optimizer, self.totals)
        strategy = self.devices.strategy
        return make_train_steps(*parts, averages=self.averages, strategy=strategy, xla=self.xla)

    def run(self):
        """Train to the end. Give the best snapshot's metrics, as in its metrics.json.

        Raises StoppedError after a signal (the state is saved), DivergedError when the loss is no
        longer a number (the best is kept), CheckpointError when what is there does not fit,
        UserError naming another worker that is gone.
        """
        with naming_lost(self.devices.cluster):
            return self._run()

    def _run(self):
        # `now` is the chief's clock, as of the last time that all workers agreed on it.
        _, self.now = self.devices.agree(None)
        self.started_at = self.saved_at = self.evaluated_at = self.now
        check_space(
            self.keeping.checkpoints,
            _bytes_of(self._variables()),
            _bytes_of(self.network.variables),
            self.plan.keep_checkpoint_max,
        )
        self._resume()
        self.devices.check_same(
            self.step,
            "{worker} goes on from another step than the chief: --model_dir must be a folder that "
            "all workers share",
        )
        self._check_stored_best()
        if self.step:
            self._fit_to_time()
        if self._is_over() and not self._evaluation_is_due():
            why = self.patience.stopped or "more train_epochs would go on"
            self.report(f"finished already, after {self.step} steps: {why}")
            return self.best
        self.history = History(self.keeping.run_dir, self.rows, writes=self.devices.is_chief)
        self.progress = Progress(*self._images(), is_shown=self.devices.is_chief)
        try:
            with StopSignals() as stop:
                while True:
                    # First: a run stopped at an epoch's very end has not evaluated it yet.
                    if self._evaluation_is_due():
                        self._evaluate()
                    if self._is_over():
                        break
                    self._train_epoch(stop)
        finally:
            self.progress.close()
            self.history.close()
        if self.patience.stopped:
            self.report(f"stopped early: {self.patience.stopped}")
        self.report(f"waited for input {self.progress.waiting:.1%} of the training time")
        return self.best

    def _resume(self):
        path = self.devices.chief_first(lambda: self.checkpoints.find_latest(self.report))
        if path is None:
            if self.plan.resume == "must":
                raise CheckpointError(
                    f"no checkpoint in {self.checkpoints.folder}, and --resume must wants one"
                )
            return
        state = read_state(path)
        check_classes(path, state["classes"], self.keeping.classes)
        check_kind(path, state.get("several", False), is_multi_label(self.network))
        total_steps = self.learning_rate.total_steps.numpy()
        read_variables(path, self._variables())
        self.devices.spread_seeds(self.network)
        if self.plan.max_minutes is None:
            # As planned now: more epochs, say. With a time to fit, as it had become.
            self.learning_rate.total_steps.assign(total_steps)
        self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
        self.best, self.rows = state["best"], state["rows"]
        self.seconds = state["seconds"]
        self.patience.state.update(state["patience"])
        if self.step < self.total_steps and self.plan.goal != Goal(**state["goal"]):
            # Judged by another goal, it may go on.
            self.patience.state["stopped"] = None
        self.report(f"going on from {path}: epoch {self.epoch + 1}, step {self.step}")
        for key, value in self.keeping.settings.items():
            before = state["settings"].get(key)
            if before != value:
                self.report(f"changed since: {key} was {before}, is {value}")

    def _check_stored_best(self):
        """Evaluate the stored best again: a restart must not lose it to something worse."""
        folder, metric = self.keeping.best, self.plan.goal.metric
        if not self.devices.chief_first(lambda: snapshots.has_snapshot(folder)):
            return
        with self.devices.strategy.scope():
            stored = snapshots.read_snapshot(folder)
        check_classes(folder, stored.classes, self.keeping.classes)
        check_kind(folder, is_multi_label(stored.network), is_multi_label(self.network))
        if stored.network.input_shape != self.network.input_shape:
            raise CheckpointError(
                f"the snapshot in {folder} takes images of shape {stored.network.input_shape[1:]}, "
                f"this run {self.network.input_shape[1:]}: choose another --run_dir"
            )
        evaluator = Evaluator(stored.network, self.objective, self.devices)
        validation, _ = self._measure(evaluator, self.validation)
        monitored = {"monitored": f"validation {metric}", "value": validation[metric]}
        self.best = {**stored.metrics, **monitored, "validation": validation}
        self.report(
            f"best so far, in {folder}: validation {metric} {validation[metric]:.4f} "
            f"(epoch {stored.metrics['epoch']})"
        )

    def _measure(self, evaluator, inputs):
        batches = self.devices.divide(inputs.batches(), inputs.batch_size)
        return evaluator.measure(batches, self.plan.max_eval_steps)

    def _train_epoch(self, stop):
        """Train until the epoch, the plan or the time is over, or an evaluation is due."""
        self.progress.describe(f"epoch {self.epoch + 1}/{self.plan.train_epochs}")
        change = self.unfreezing.apply(self.epoch) if self.unfreezing else None
        if change:
            self.report(change)
            self.train_steps = self._compile()
        self.losses = None
        self._agree(stop)
        if self._goes_on():
            self._train_batches(self.seen.training.batches(self.epoch, self.batch), stop)
        self._check_finite(self.losses, self.step)
        if self.batch == self.training.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        if self.stopping:
            self._save()
            raise stop.error(f"in epoch {self.epoch + 1}, after step {self.step}")

    def _train_batches(self, batches, stop):
        """Make steps while nothing else is due. (Another engine makes them in another way.)"""
        iterator = iter(self.devices.divide(batches, self.training.batch_size))
        while self._goes_on():
            count = self._steps_at_once()
            self._take_in(self._make_steps(iterator, count), count, stop)

    def _goes_on(self):
        is_within_epoch = self.batch < self.training.batches_per_epoch
        return is_within_epoch and not (
            self.stopping or self._is_over() or self._evaluation_is_due()
        )

    def _take_in(self, losses, count, stop):
        """Do what is due after `count` steps with these losses."""
        # Looking at the steps before: waiting for these would leave the device idle.
        self._check_finite(self.losses, self.step - count)
        self.losses = losses
        self._agree(stop)
        every = self.plan.save_summary_steps
        if self.step // every > (self.step - count) // every:
            self._summarize(losses)
        self._fit_to_time()
        if self.now - self.saved_at > self.plan.save_checkpoints_secs and (
            not self._evaluation_is_due()
        ):
            self._check_finite(losses, self.step)
            self._save()

    def _agree(self, stop):
        """Hear whether any worker was told to stop: all stop after the same step."""
        self.stopping, self.now = self.devices.agree(stop.received)
        stop.received = stop.received or self.stopping

    def _steps_at_once(self):
        """Give how many steps to make in one call: never past where something else is due."""
        limits = [
            self.plan.steps_per_execution,
            self.training.batches_per_epoch - self.batch,
            self.total_steps - self.step,
        ]
        if self.plan.steps_between_evals:
            limits.append(-self.step % self.plan.steps_between_evals or limits[0])
        return min(limits)

    def _make_steps(self, iterator, count):
        try:
            losses, waited = self.train_steps(iterator, tf.constant(count))
        except (tf.errors.OutOfRangeError, StopIteration):
            raise self._too_few(self.batch + count) from None
        self._count(count, waited)
        return losses

    def _too_few(self, batch):
        return DataError(
            f"epoch {self.epoch + 1} ended before batch {batch} of "
            f"{self.training.batches_per_epoch}: the shards hold fewer examples than their "
            "manifest says; convert again"
        )

    def _count(self, count, waited=0.0):
        before = self._images()[1]
        self.step += count
        self.batch += count
        self.progress.add(self._images()[1] - before, waited)

    def _images(self):
        """Give (images in the whole training, images done)."""
        examples, batches = self.training.examples, self.training.batches_per_epoch
        total = self.total_steps * examples // batches
        return total, self.epoch * examples + min(self.batch * self.training.batch_size, examples)

    def _check_finite(self, losses, last_step):
        if losses is None or np.isfinite(losses).all():
            return
        losses = np.asarray(losses)
        at = int(np.argmin(np.isfinite(losses)))
        step = last_step - len(losses) + at + 1
        rate = float(self.optimizer.learning_rate)
        raise DivergedError(
            f"the loss is {losses[at]} at step {step}, learning rate {rate:g}: try a smaller "
            "--learning_rate; the best and the last checkpoint are kept"
        )

    def _summarize(self, losses):
        rate = float(self.optimizer.learning_rate)
        scalars = {"loss": float(losses[-1]), "learning_rate": rate}
        self.history.add_training_step(self.step, scalars)

    def _elapsed(self):
        """Give the seconds spent so far, in earlier processes too."""
        return self.seconds + self.now - self.started_at

    def _fit_to_time(self):
        """Make the schedule end when the time will, from the speed so far."""
        if self.plan.max_minutes is None:
            return
        left = self.plan.max_minutes * 60 - self._elapsed()
        fitting = self.step * (1 + left / max(self._elapsed(), 1e-9))
        planned = self.plan.total_steps(self.training.batches_per_epoch)
        possible = max(min(planned, round(fitting)), self.step + 1)
        self.total_steps = possible if left > 0 else self.step
        self.learning_rate.total_steps.assign(float(self.total_steps))

    def _is_over(self):
        return self.step >= self.total_steps or self.patience.stopped is not None

    def _evaluation_is_due(self):
        plan = self.plan
        if self.step == (self.rows[-1]["step"] if self.rows else 0):
            return False
        if self.step >= self.total_steps:
            return True
        if plan.eval_throttle_secs is not None:
            return self.now - self.evaluated_at >= plan.eval_throttle_secs
        if plan.steps_between_evals is not None:
            return self.step % plan.steps_between_evals == 0
        return self.batch == 0 and self.epoch % plan.epochs_between_evals == 0

    def _evaluate(self):
        """Measure on validation, keep the best, save the latest, and say so."""
        self.progress.pause()
        self.average_statistics()
        training = self.totals.means()
        self.totals.reset()
        with self.averages.in_place() if self.averages else contextlib.nullcontext():
            validation, examples = self._measure(self.evaluator, self.seen.validation)
            if not examples:
                raise DataError("the validation split is empty: the best model cannot be told")
            epoch = self.epoch + (self.batch > 0)
            is_best = self._keep_best(epoch, validation)
        if self.patience.judge(validation):
            self.learning_rate.factor.assign(
                self.learning_rate.factor * self.plan.goal.plateau_factor
            )
            self.report("on a plateau: the learning rate falls")
        row = {
            "epoch": epoch,
            "step": self.step,
            "learning_rate": float(self.optimizer.learning_rate),
            "images_per_second": round(self.progress.take_images_per_second(), 1),
        }
        self.history.add_evaluation(row, training, validation)
        self.rows = self.history.rows
        self._save()
        self.report(
            f"epoch {epoch}/{self.plan.train_epochs}  loss {training['loss']:.4f}  "
            f"accuracy {training['accuracy']:.4f}  validation loss {validation['loss']:.4f}  "
            f"accuracy {validation['accuracy']:.4f}  {row['images_per_second']:,.0f} images/s"
            f"{'  best' if is_best else ''}"
        )
        _, self.now = self.devices.agree(None)
        self.evaluated_at = self.now
        self.progress.go_on()

    def _keep_best(self, epoch, validation):
        """Save a snapshot if it is the best so far by the goal. Say whether it is."""
        goal, keeping = self.plan.goal, self.keeping
        value = validation[goal.metric]
        if not goal.is_better(value, self.best["value"] if self.best else None):
            return False
        metrics = {
            "epoch": epoch,
            "step": self.step,
            "monitored": f"validation {goal.metric}",
            "value": value,
            "validation": validation,
        }
        if self.devices.is_chief:
            snapshots.write_snapshot(
                keeping.best, self.network, keeping.classes, metrics, keeping.texts
            )
        # Last: a crash while saving keeps the old best.
        self.best = metrics
        return True

    def _variables(self):
        """Give all that a step changes, in a stable order."""
        return [
            *self.network.variables,
            *self.optimizer.variables,
            *self.learning_rate.variables,
            *(self.averages.variables if self.averages else ()),
            *self.totals.variables,
        ]

    def _averages_at(self):
        """Give where among a checkpoint's variables the averages begin, or None without any."""
        before = (self.network.variables, self.optimizer.variables, self.learning_rate.variables)
        return sum(map(len, before)) if self.averages else None

    def _save(self):
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "best": self.best,
            "patience": self.patience.state,
            "goal": vars(self.plan.goal),
            "seconds": self._elapsed(),
            "rows": self.rows,
            "classes": list(self.keeping.classes),
            "several": is_multi_label(self.network),
            "settings": self.keeping.settings,
            "averages_at": self._averages_at(),
        }
        self.average_statistics()
        # Reading them may take all workers.
        variables = self.devices.read(self._variables())
        if self.devices.is_chief:
            self.checkpoints.save(self.step, variables, state)
        self.saved_at = self.now


def _bytes_of(variables):
    return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in variables)
