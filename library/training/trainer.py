"""The training loop: epochs, evaluations, the best snapshot and the latest checkpoint."""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from library.errors import (
    CheckpointError,
    DataError,
    SettingsError,
    StoppedError,
    if_interrupted,
)
from library.inputs.corruption import find_failure
from library.inputs.interfaces import SplitInputs
from library.messages import counted
from library.saving.checkpoints import Checkpoints
from library.training.best_snapshot import BestSnapshot
from library.training.distribution import Devices
from library.training.divergence import check_best, check_losses, check_validation_loss
from library.training.evaluator import Evaluator
from library.training.interruption import StopOnSignal, finished_error, resume_hint, stopped_error
from library.training.listeners import Evaluation, Listener, Run
from library.training.parts import NoSchedule, Parts, RunInputs
from library.training.plan import Plan, RunPaths
from library.training.profiler import Profiler
from library.training.progress import History, LogLines, ProgressBar, run_summary
from library.training.resume import RunCheckpoints, describe_run
from library.training.run_directory import bytes_of, check_space, locked_run, write_texts
from library.training.steps import MetricSums, learning_rate_at, make_train_steps, steps_per_update
from library.training.tensorboard import LOGS, TensorBoard
from library.training.timetable import Throughput, Timetable
from library.training.train_state import TrainState

logger = logging.getLogger(__name__)

# With cached features an epoch takes less time than saving does: training of this many seconds may
# be lost, and is repeated, if the process is killed.
SECONDS_UNSAVED = 5


def default_listeners(*, shows_inputs: bool = True) -> list[Listener]:
    """Return the listeners of a run that names none. See TensorBoard for `shows_inputs`."""
    return [ProgressBar(), History(), TensorBoard(shows_inputs=shows_inputs), LogLines()]


class Trainer:
    """One run, from wherever it stopped to its end: `Trainer(…).fit()`."""

    def __init__(
        self,
        parts: Parts,
        inputs: RunInputs,
        plan: Plan,
        paths: RunPaths,
        devices: Devices | None = None,
        listeners: Sequence[Listener] | None = None,
    ) -> None:
        """Prepare a run; nothing is read from disk or written yet.

        Args:
            parts: What is trained, created in the scope of the devices' strategy.
            inputs: The training and the validation split.
            plan: How long to train, and how often to do what.
            paths: Where to write.
            devices: What to train on; None: one device.
            listeners: What to report to; None: the default listeners.
        """
        self.parts, self.inputs, self.plan, self.paths = parts, inputs, plan, paths
        self.devices = devices or Devices()
        is_chief = self.devices.is_chief
        listeners = default_listeners() if listeners is None else listeners
        self.listeners = listeners if is_chief else ()
        self.state = TrainState()
        self.timetable = Timetable(plan, inputs.training, self.devices)
        if isinstance(parts.schedule, NoSchedule) and plan.monitor.plateau_patience is not None:
            raise SettingsError("plateau_patience needs a schedule, which it can lower")
        with self.devices.strategy.scope():
            self.totals = MetricSums(parts.objective.names)
            # Build for all that any epoch trains, before `unfreezing` freezes what comes later.
            parts.optimizer.build(parts.network.trainable_variables)
        cached = parts.cached_features
        # What the steps run: the whole network on images, or its head on cached features.
        self.step_parts = replace(parts, network=cached.head) if cached else parts
        self.step_inputs: SplitInputs | RunInputs = inputs
        self.devices.spread_seeds(parts.network)
        source = getattr(inputs.training, "source", None)
        self._may_fail = source is not None and source.is_streamed
        self.compile()
        # The shape that the compiled step was made for.
        self._input_shape = tf.TensorShape(self.step_parts.network.input_shape[1:])
        self.evaluator = self._make_evaluator()
        self.checkpoints = RunCheckpoints(
            Checkpoints(paths.checkpoints, plan.keep_checkpoint_max),
            parts,
            self.totals,
            describe_run(parts, inputs.training, plan, paths),
            self.devices,
            paths,
        )
        self.best_snapshot = BestSnapshot(parts, paths, plan.monitor, self.devices)
        logs = paths.run_dir / LOGS
        self.profiler = Profiler(plan.profile_steps if is_chief else None, logs)
        # The batches that come next, the epoch and batch that they begin at, and the first epoch
        # that is not among them.
        self._batch_iterator: Any = None
        self._iterator_position: tuple[int, int] | None = None
        self._iterator_end = 0
        self._losses: Any = ()  # of the last call
        self._stop = StopOnSignal()
        self._stop_signal: signal.Signals | None = None  # the one that all workers agreed on

    def fit(self) -> dict[str, Any]:
        """Train to the end, from wherever an earlier process stopped.

        Returns:
            The best snapshot's metrics, as in its metrics.json.

        Raises:
            StoppedError: A signal came; the state is saved.
            DivergedError: The loss became NaN or infinite; the best snapshot is unchanged.
            CheckpointError: The checkpoint or the snapshot in the run's folders does not fit.
            UserError: Another worker is lost, the folders are in use, or a disk is full.
        """
        logger.info(run_summary(self.parts, self.inputs, self.paths.classes, self.devices))
        # Before an earlier run is moved.
        updates, metrics = steps_per_update(self.parts.optimizer), self.parts.validation_metrics
        self.plan.check(self.timetable.total_steps, updates, metrics)
        folders = locked_run(self.paths, self.plan.resume, is_chief=self.devices.is_chief)
        with folders, self.devices.explain_lost_workers():
            self._resume()
            if not self.timetable.has_work(self.state):
                return self._finish_again()
            self._prepare()
            with self._listening(), StopOnSignal() as self._stop, self._saved_if_inputs_fail():
                while self.timetable.has_work(self.state):
                    # A run that was stopped at the end of an epoch has yet to evaluate it.
                    if not self.timetable.evaluation_is_due(self.state):
                        self._train_epoch()  # or the part of it before the next evaluation
                    if self.timetable.evaluation_is_due(self.state):
                        with self.throughput.paused():
                            with self.parts.averaged_weights():
                                validation = self._evaluate()
                                if validation is not None:
                                    is_best = self.best_snapshot.save_if_better(
                                        self.state, validation
                                    )
                            if validation is None:
                                raise self._stopped()
                            self._lower_learning_rate_on_plateau(validation)
                            self._add_row(validation, is_best)
                            self._save_if_slow()
                            self.timetable.mark_evaluated()
        if self._stop.received:  # during the last evaluation
            raise finished_error(self._stop.received)
        return check_best(self.state.best, self.plan.monitor.metric)

    # What an engine overrides, and below it what it calls.

    # Whether nothing has changed if a step finds no batch.
    has_whole_steps = True

    def compile(self) -> None:
        """Make the compiled step, for the weights that are trainable now."""
        self.train_steps = make_train_steps(
            self.step_parts,
            self.totals,
            strategy=self.devices.strategy,
            xla=self.plan.xla,
            steps_per_execution=None if self._may_fail else self.plan.steps_per_execution,
        )

    def prefetch(self) -> None:
        """Start to prepare the batches that come next: a new epoch's during the evaluation."""
        position = self.state.epoch, self.state.batch
        if self._iterator_position is None or position[0] == self._iterator_end:
            # Several epochs of cached features, which take less time than making a data set does.
            epochs = getattr(self.step_inputs.training, "epochs_at_once", 1)
            epochs = max(1, min(epochs, self.plan.train_epochs - position[0]))
            self._batch_iterator = iter(self.divided_batches(*position, epochs=epochs))
            self._iterator_end = position[0] + epochs
        self._iterator_position = position

    def divided_batches(self, epoch: int, batch: int, count: int = -1, *, epochs: int = 1) -> Any:
        """Return batches divided among replicas.

        Args:
            epoch: The epoch to begin in.
            batch: The first batch.
            count: Number of batches; -1: all.
            epochs: Number of epochs; more than 1 only of cached features.
        """
        make: Callable[..., tf.data.Dataset] = self.step_inputs.training.batches
        if self.parts.augment:
            make = self.inputs.training.step_batches
        several = {"epochs": epochs} if epochs > 1 else {}
        batches = make(epoch, batch, **several).take(count)
        shape = batches.element_spec[0].shape[1:]
        if shape.is_fully_defined() and shape != self._input_shape:
            size = " x ".join(map(str, shape[:2]))
            logger.info(f"epoch {epoch + 1}: training on images of {size}")
            # Another trace, whose shapes are all known: layers may need them, and XLA does.
            self.compile()
            self._input_shape = shape
        return self.devices.divide(batches, self.inputs.training.batch_size)

    def make_steps(self) -> None:
        """Make steps as long as nothing else is due."""
        state = self.state
        if self._iterator_position != (state.epoch, state.batch):
            self.prefetch()
        while self.should_continue():
            count = min(self.plan.steps_per_execution, self.steps_until_due())
            try:
                with tf.profiler.experimental.Trace("train", step_num=state.step, _r=1):
                    losses, input_wait = self.train_steps(self._batch_iterator, count)
            except (tf.errors.OutOfRangeError, StopIteration):
                raise self.too_few_examples(state.batch + count) from None
            self.after_steps(losses, count, input_wait)
        # After an evaluation within the epoch, the iterator continues.
        self._iterator_position = (state.epoch, state.batch)

    def should_continue(self) -> bool:
        """Return whether the next thing to do is another step of this epoch."""
        return not self._stop_signal and self.timetable.step_is_due(self.state)

    def steps_until_due(self) -> int:
        """Return the number of steps until something else is due, by count if not by time."""
        steps = self.timetable.steps_until_due(self.state)
        return min(steps, self.profiler.steps_to_change(self.state.step) or steps)

    def after_steps(self, losses: Any, count: int, input_wait: tf.Tensor | None = None) -> None:
        """Count the steps of one call, report them, and save if it is time to.

        Args:
            losses: The losses of the steps, float32 (count,), or of the last ones.
            count: Number of steps.
            input_wait: Seconds spent waiting for input, a scalar; None if it was not measured.
        """
        state = self.state
        images_before = self.timetable.images(state)
        state.step += count
        state.batch += count
        self.throughput.add(self.timetable.images(state) - images_before, input_wait)
        # Check the losses of the call before: waiting for these would leave the device idle.
        check_losses(self._losses, state.step - count, self.learning_rate_at)
        self._losses = losses
        self._sync_stop()
        self.profiler.after_step(state.step)
        for listener in self.listeners:
            listener.on_steps(count, losses)
        self._fit_schedule_to_time()
        if self.timetable.save_is_due(state):
            check_losses(losses, state.step, self.learning_rate_at)
            self._save()

    def too_few_examples(self, batch: int) -> DataError:
        """Return the error for an epoch that ends before its batch number `batch`."""
        return DataError(
            f"epoch {self.state.epoch + 1} ended before batch {batch} of "
            f"{self.inputs.training.batches_per_epoch}: the shards hold fewer examples than their "
            "manifest says; convert again"
        )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate that a step already made had."""
        return learning_rate_at(self.parts, self.state.step, step)

    # The phases of a run, in order.

    def _resume(self) -> None:
        """Continue from the latest checkpoint, if there is one; change nothing on disk."""
        self.timetable.start()
        planned_steps = self.parts.schedule.total_steps.numpy()
        if restored := self.checkpoints.restore(self.timetable.total_steps):
            self.state = restored
            self.timetable.resume(restored)
            self.devices.spread_seeds(self.parts.network)
            if self.plan.max_minutes is None:
                # The length that is planned now, with more epochs perhaps. A time budget instead
                # continues with the length that it had found.
                self.parts.schedule.total_steps.assign(planned_steps)
        elif self.plan.resume == "must":
            raise CheckpointError(
                f"no checkpoint in {self.paths.checkpoints}, and --resume must needs one"
            )
        self.devices.check_same_step(self.state.step)
        self.best_snapshot.evaluate_stored(self.state, self._evaluate_images)
        if self.state.step:
            self._fit_schedule_to_time()

    def _finish_again(self) -> dict[str, Any]:
        """Report that there is nothing to do; save the last network if the best one is missing."""
        state = self.state
        if state.step and state.best is None:
            with self.parts.averaged_weights():
                validation = self._evaluate_images(self.parts.network)
                if self.best_snapshot.save_if_better(state, validation):
                    logger.info(f"Saved the last network, of epoch {state.last_epoch}, instead")
            self.best_snapshot.save_pending()
        finished = f"Already finished ({counted(state.step, 'step')})"
        new_run = "start a new run with another --run_dir, or with --resume never"
        if changed := self.checkpoints.changed:
            logger.warning(
                f"{finished}: nothing is trained with the changed {', '.join(changed)}; {new_run}"
            )
        else:
            reason = state.early_stopping.stopped
            limit = f"Raise --{self.timetable.limit} to continue, or {new_run}."
            logger.info(f"{finished}. {reason or limit}")
        return check_best(state.best, self.plan.monitor.metric)

    def _prepare(self) -> None:
        """Write the settings, and make the cached features."""
        sizes = bytes_of(self.checkpoints.variables()), bytes_of(self.parts.network.variables)
        check_space(self.paths, *sizes, self.plan.keep_checkpoint_max)
        if self.devices.is_chief:
            # Only now: if resuming is refused, the earlier run's files stay as they were.
            write_texts(self.paths.run_dir, self.paths.texts)
        cached, state = self.parts.cached_features, self.state
        # One that was stopped at the end of an epoch has yet to evaluate it.
        is_evaluated = state.batch or not self.timetable.evaluation_is_due(state)
        if cached and state.epoch + bool(is_evaluated) > cached.epochs:
            self._leave_features()
        elif cached:
            # Only now: the checkpoint may have brought another base.
            with if_interrupted(
                "Features cached so far are kept in whole splits; run the same command to resume."
            ):
                self.step_inputs = cached.make_inputs()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Report the start and the end of the block to the listeners."""
        state, self.throughput = self.state, Throughput()
        run = Run(
            network=self.parts.network,
            plan=self.plan,
            paths=self.paths,
            state=state,
            timetable=self.timetable,
            throughput=self.throughput,
            next_batches=self._next_batches,
            learning_rates=self.parts.learning_rates,
        )
        for listener in self.listeners:
            listener.on_start(run)
        self.profiler.after_step(state.step)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.profiler.close(state.step)
            for listener in self.listeners:
                listener.on_finish(error)
            self.best_snapshot.save_pending()

    @contextmanager
    def _saved_if_inputs_fail(self) -> Iterator[None]:
        """Save the state if no more inputs can be had, as of a store that does not answer."""
        try:
            yield
        except tf.errors.OpError as error:
            if not (failure := find_failure(self.inputs)):
                raise
            hint = resume_hint(starts_over=self.plan.resume == "never")
            # Workers can save only together; and `fit` may have made a part of the step.
            if self.devices.workers > 1 or not self.has_whole_steps:
                raise type(failure)(f"{failure}; {hint} from the latest checkpoint") from error
            self._count_partial_call()
            stopped = self._stopped()
            if self._stop.received:  # Which ends the wait for a store, too.
                raise stopped from error
            raise type(failure)(f"{failure}. State saved; {hint}") from error

    def _count_partial_call(self) -> None:
        """Count the steps that a call of several made before it failed."""
        state, images = self.state, self.timetable.images
        epoch, batch = divmod(state.evaluated_step, self.inputs.training.batches_per_epoch)
        # The metrics are of the images since the last evaluation, before a resume too.
        counted_images = images(state) - images(TrainState(epoch=epoch, batch=batch))
        steps = -(-(self.totals.examples - counted_images) // self.inputs.training.batch_size)
        state.step += steps
        state.batch += steps

    def _leave_features(self) -> None:
        """Run the base in every step from now on, because it is trained."""
        self.best_snapshot.save_at_once()
        self.step_parts, self.step_inputs = self.parts, self.inputs
        self.evaluator, self._iterator_position = self._make_evaluator(), None
        self._input_shape = tf.TensorShape(self.parts.network.input_shape[1:])

    def _make_evaluator(self) -> Evaluator:
        return Evaluator(
            self.step_parts.network,
            self.parts.objective,
            self.devices,
            split_metric=self.parts.split_metric,
            xla=self.plan.xla,
        )

    def _train_epoch(self) -> None:
        """Train until the epoch, the plan or the time is over, or an evaluation is due."""
        state, unfreezing = self.state, self.parts.unfreezing
        for listener in self.listeners:
            listener.on_epoch_start(state.epoch)
        if unfreezing and (change := unfreezing.apply(state.epoch)):
            logger.info(change)
            cached = self.parts.cached_features
            if cached and state.epoch >= cached.epochs:
                self._leave_features()
            self.compile()
        self._losses = ()
        self._sync_stop()
        if self.should_continue():
            self.make_steps()
        check_losses(self._losses, state.step, self.learning_rate_at)
        if state.batch == self.inputs.training.batches_per_epoch:
            state.epoch, state.batch = state.epoch + 1, 0
            if not self._stop_signal and not self.timetable.is_finished(state):
                self.prefetch()
        if self._stop_signal:
            raise self._stopped()

    def _stopped(self) -> StoppedError:
        """Save, and return the error that ends the run after a signal."""
        self._save()
        received = self._stop_signal or self._stop.received or signal.SIGINT
        starts_over = self.plan.resume == "never"
        return stopped_error(
            received, self.state.epoch + 1, self.state.step, starts_over=starts_over
        )

    def _must_stop(self) -> bool:
        """Return whether to stop within an evaluation, which is repeated after resuming.

        Several workers evaluate to the end: each must run the same batches.
        """
        return self._stop.received is not None and self.devices.workers == 1

    def _evaluate(self) -> dict[str, float] | None:
        """Return the validation metrics, or None if a signal stopped the evaluation."""
        inputs, max_steps = self.step_inputs.validation, self.plan.max_eval_steps
        validation, examples = self.evaluator.evaluate(inputs, max_steps, self._must_stop)
        if self._must_stop():
            return None
        if not examples:
            raise DataError("the validation split is empty, so no snapshot can be the best")
        check_validation_loss(validation["loss"], self.state.step, self.learning_rate_at)
        self.plan.monitor.check_defined(validation)
        return validation

    def _evaluate_images(self, network: keras.Model) -> dict[str, float]:
        """Evaluate a whole network once, on images even with cached features."""
        objective, split_metric = self.parts.objective, self.parts.split_metric
        evaluator = Evaluator(network, objective, self.devices, split_metric=split_metric)
        return evaluator.evaluate(self.inputs.validation, self.plan.max_eval_steps)[0]

    def _lower_learning_rate_on_plateau(self, validation: dict[str, float]) -> None:
        monitor, factor = self.plan.monitor, self.parts.schedule.factor
        if self.state.early_stopping.update(monitor, validation):
            factor.assign(factor * monitor.plateau_factor)
            logger.info(
                f"Validation {monitor.metric} is on a plateau: learning rate multiplied by "
                f"{monitor.plateau_factor:g}"
            )

    def _add_row(self, validation: dict[str, float], is_best: bool) -> None:
        """Add an evaluation to the history, and report it."""
        state, training = self.state, self.totals.means()
        self.totals.reset()
        row = {
            "epoch": state.last_epoch,
            "step": state.step,
            **self.parts.learning_rates(),
            "images_per_second": round(self.throughput.images_per_second("evaluations"), 1),
            **training,
            **{f"validation_{name}": value for name, value in validation.items()},
        }
        state.rows.append(row)
        evaluation = Evaluation(row, training, validation, is_best)
        for listener in self.listeners:
            listener.on_evaluation(evaluation)

    def _save_if_slow(self) -> None:
        """Save, unless with cached features that was done a moment ago."""
        is_fast = self.step_parts is not self.parts and self.timetable.since_save <= SECONDS_UNSAVED
        if not is_fast or self.timetable.is_finished(self.state):
            self._save()

    def _save(self) -> None:
        """Save the best network, if it is only remembered, and then a checkpoint."""
        self.best_snapshot.save_pending()
        self.state.elapsed_seconds = self.timetable.elapsed
        self.checkpoints.save(self.state, self.learning_rate_at)
        self.timetable.mark_saved()

    def _sync_stop(self) -> None:
        """Learn whether any worker received a signal: all stop after the same step."""
        self._stop_signal = self.timetable.sync(self._stop.received)

    def _fit_schedule_to_time(self) -> None:
        if self.timetable.fit_to_time(self.state):
            self.parts.schedule.total_steps.assign(float(self.timetable.total_steps))

    def _next_batches(self) -> tf.data.Dataset:
        """Return the batches that come next, or others if these have to be waited for."""
        epochs, batch = divmod(self.state.batch, self.inputs.training.batches_per_epoch)
        return self.inputs.training.preview_batches(self.state.epoch + epochs, batch)
