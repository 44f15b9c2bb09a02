"""The training loop: epochs, evaluation, the best kept, the latest saved. Reads top to bottom."""

import contextlib
import math

import tensorflow as tf

from library.errors import DataError
from library.inputs.interfaces import SplitInputs
from library.logging import report
from library.messages import counted
from library.saving.checkpoints import Checkpoints
from library.training.best_snapshot import BestSnapshot
from library.training.distribution import Devices, naming_lost
from library.training.divergence import check_best, check_losses, check_validation
from library.training.early_stopping import EarlyStopping
from library.training.evaluator import Evaluator
from library.training.interruption import StopOnSignal, TimeBudget
from library.training.profiler import Profile
from library.training.resume import resume, save
from library.training.run_directory import check_space, write_texts
from library.training.run_logger import RunLogger
from library.training.steps import MetricSums, learning_rate_at, make_train_steps

# On kept features an epoch takes less time than saving does: this many seconds are then lost at
# most, and made again, when the process is killed.
_SECONDS_UNSAVED = 2


class Trainer:
    """One run, from wherever it stopped to its end.

    `training` and `validation` are as TrainingInputs and EvaluationInputs in project/inputs.py.
    `learning_rate` is the schedule inside the optimizer, as LearningRate in project/schedules.py;
    `averages` is Averages, or None where the weights themselves are evaluated and kept.
    `unfreezing`, as in library/models/freezing.py, says what is trained from which epoch on;
    `kept`, as in library/models/features.py, makes inputs that spare running the frozen base.
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
        paths,
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
        self.paths = paths
        self.unfreezing = unfreezing
        # What the steps see: images and the whole network, or features and its head.
        self.seen = SplitInputs(training, validation)
        self.head = kept.head if kept else network
        self.kept = kept
        # What tells one best network from another, where bests are remembered before they are kept.
        self.changing = kept.head.variables if kept else None
        self.devices = devices or Devices()
        # Only the chief speaks and writes; all workers do the rest alike.
        self.report = report if self.devices.is_chief else lambda text: None
        with self.devices.strategy.scope():
            self.totals = MetricSums(objective.names)
            # For all that any epoch trains: before `unfreezing` freezes what comes later.
            optimizer.build(network.trainable_variables)
        self.devices.spread_seeds(network)
        self.xla = xla
        self.train_steps = self._compile()
        self.evaluator = Evaluator(self.head, objective, self.devices, xla=xla)
        self.average_statistics = self.devices.make_averaging(network)
        self.checkpoints = Checkpoints(paths.checkpoints, plan.keep_checkpoint_max)
        self.total_steps = plan.total_steps(training.batches_per_epoch)
        self.stopping = None
        # Where the run is: the epoch and the batch within it that come next.
        self.step = self.epoch = self.batch = 0
        # An iterator of the batches that come next, and the epoch and batch that it stands at.
        self.coming = self.coming_at = None
        self.keeper = BestSnapshot(paths, plan.goal, self.devices)
        self.patience = EarlyStopping(plan.goal)
        self.clock = TimeBudget(self.devices)
        self.rows = []

    @property
    def best(self):
        """What the metrics.json of the best snapshot says, or None."""
        return self.keeper.metrics

    def _compile(self):
        """Return the steps, for what is trained now."""
        return make_train_steps(
            self.head,
            self.objective,
            self.optimizer,
            self.totals,
            averages=self.averages,
            strategy=self.devices.strategy,
            xla=self.xla,
            steps_per_execution=self.plan.steps_per_execution,
        )

    def run(self):
        """Train to the end. Give the best snapshot's metrics, as in its metrics.json.

        Raises StoppedError after a signal (the state is saved), DivergedError when the loss is no
        longer a number (the best is kept), CheckpointError when what is there does not fit,
        UserError naming another worker that is gone.
        """
        with naming_lost(self.devices.cluster):
            best = self._run()
        check_best(best, self.plan.goal.metric)
        return best

    def _run(self):
        self.clock.start()
        self._resume()
        if self._is_over() and not self._evaluation_is_due():
            if self.step and self.best is None:
                self._keep_last()
            limit = self.plan.limit(self.total_steps, self.training.batches_per_epoch)
            why = self.patience.stopped or f"more {limit} would go on"
            self.report(f"finished already, after {counted(self.step, 'step')}: {why}")
            return self.best
        check_space(
            self.paths,
            _bytes_of(self.variables()),
            _bytes_of(self.network.variables),
            self.plan.keep_checkpoint_max,
        )
        if self.devices.is_chief:
            # Not before: a start that is refused leaves those of the run that is there.
            write_texts(self.paths.run_dir, self.paths.texts)
        if self.kept:
            # Not before: a checkpoint may have brought another base.
            self.seen = self.kept.make_inputs()
        self.run_logger = RunLogger(
            self.paths,
            self.plan,
            self.rows,
            self._images(),
            self._coming_batches,
            self.report,
            is_told=self.devices.is_chief,
        )
        logs = self.paths.run_dir / "logs" / "train"
        steps = self.plan.profile_steps if self.devices.is_chief else None
        self.profile = Profile(steps, logs, self.report)
        self.profile.after(self.step)
        try:
            with StopOnSignal() as stop:
                while True:
                    # First: a run stopped at an epoch's very end has not evaluated it yet.
                    if self._evaluation_is_due():
                        self._evaluate()
                    if self._is_over():
                        break
                    self._train_epoch(stop)
        finally:
            self.profile.close(self.step)
            self.run_logger.close()
            self.keeper.write(self.network)
        if self.patience.stopped:
            self.report(f"stopped early: {self.patience.stopped}")
        self.run_logger.tell_waiting()
        return self.best

    def _resume(self):
        """Be where an earlier process stopped, if there was one; change nothing that it left."""
        resume(self)
        self.devices.check_same(
            self.step,
            "{worker} goes on from another step than the chief: --model_dir must be a folder that "
            "all workers share",
        )
        stored = self.keeper.check_stored(self.network, self._measure_other)
        if stored:
            self.report(stored)
        if self.step:
            self._fit_to_time()

    def _keep_last(self):
        """Keep the network as the run left it: where it is finished, and its best is gone."""
        with self.averages.in_place() if self.averages else contextlib.nullcontext():
            validation = self._measure_other(self.network)
            epoch = self.epoch + (self.batch > 0)
            if self.keeper.keep(self.network, epoch, self.step, validation):
                self.report(f"in its place the last is kept, of epoch {epoch}")

    def _measure(self, evaluator, inputs):
        batches = self.devices.divide(inputs.batches(), inputs.batch_size)
        return evaluator.evaluate(batches, self.plan.max_eval_steps)

    def _measure_other(self, network):
        evaluator = Evaluator(network, self.objective, self.devices)
        return self._measure(evaluator, self.validation)[0]

    def _train_epoch(self, stop):
        """Train until the epoch, the plan or the time is over, or an evaluation is due."""
        self.run_logger.start_epoch(self.epoch, self.best)
        change = self.unfreezing.apply(self.epoch) if self.unfreezing else None
        if change:
            self.report(change)
            self.train_steps = self._compile()
        self.losses = ()
        self._agree(stop)
        if self._goes_on():
            self._train_batches(stop)
        check_losses(self.losses, self.step, self.learning_rate_at)
        if self.batch == self.training.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
            if not self.stopping and not self._is_over():
                self._begin_epoch()
        if self.stopping:
            self._save()
            raise stop.error(f"in epoch {self.epoch + 1}, after step {self.step}")

    def _train_batches(self, stop):
        """Make steps while nothing else is due. (Another engine makes them in another way.)"""
        if self.coming_at != (self.epoch, self.batch):
            self._begin_epoch()
        while self._goes_on():
            count = self._steps_at_once()
            self._take_in(self._make_steps(self.coming, count), count, stop)
        # After an evaluation in mid-epoch it goes on with them.
        self.coming_at = (self.epoch, self.batch)

    def _begin_epoch(self):
        """Let the batches that come next be made; a new epoch's, while the old is evaluated."""
        batches = self.seen.training.batches(self.epoch, self.batch)
        self.coming = iter(self.devices.divide(batches, self.training.batch_size))
        self.coming_at = (self.epoch, self.batch)

    def _coming_batches(self):
        """Return the batches that come next: at an epoch's end, those of the one after it."""
        epochs, batch = divmod(self.batch, self.training.batches_per_epoch)
        return self.training.batches(self.epoch + epochs, batch)

    def _goes_on(self):
        is_within_epoch = self.batch < self.training.batches_per_epoch
        return is_within_epoch and not (
            self.stopping or self._is_over() or self._evaluation_is_due()
        )

    def _take_in(self, losses, count, stop):
        """Do what is due after `count` steps with these losses."""
        # Looking at the steps before: waiting for these would leave the device idle.
        check_losses(self.losses, self.step - count, self.learning_rate_at)
        self.losses = losses
        self._agree(stop)
        self.profile.after(self.step)
        self.run_logger.add_steps(self.step, count, losses, self._rate)
        self._fit_to_time()
        is_old = self.clock.now - self.clock.saved_at > self.plan.save_checkpoints_secs
        if is_old and not self._evaluation_is_due():
            check_losses(losses, self.step, self.learning_rate_at)
            self._save()

    def _agree(self, stop):
        """Hear whether any worker was told to stop: all stop after the same step."""
        self.stopping = self.clock.agree(stop.received)
        stop.received = stop.received or self.stopping

    def _steps_at_once(self):
        """Return how many steps to make in one call: never past where something else is due."""
        limits = [
            self.plan.steps_per_execution,
            self.training.batches_per_epoch - self.batch,
            self.total_steps - self.step,
            self.profile.steps_to_edge(self.step) or self.plan.steps_per_execution,
        ]
        if self.plan.steps_between_evals:
            limits.append(-self.step % self.plan.steps_between_evals or limits[0])
        return min(limits)

    def _make_steps(self, iterator, count):
        try:
            with tf.profiler.experimental.Trace("train", step_num=self.step, _r=1):
                losses, waited = self.train_steps(iterator, count)
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

    def _count(self, count, waited=None):
        _, before = self._images()
        self.step += count
        self.batch += count
        total, images = self._images()
        self.run_logger.add_images(images - before, waited, total)

    def _images(self):
        """Give (images in the whole training, images done)."""
        examples, batches = self.training.examples, self.training.batches_per_epoch
        total = self.total_steps * examples // batches
        return total, self.epoch * examples + min(self.batch * self.training.batch_size, examples)

    def _rate(self):
        """Return the learning rate. Asked for rarely: to work it out may take as long as a step."""
        return float(self.optimizer.learning_rate)

    def learning_rate_at(self, step):
        """Return the learning rate that a step already made had."""
        return learning_rate_at(self.optimizer, self.learning_rate, self.step, step)

    def _fit_to_time(self):
        """Make the schedule end when the time will, from the speed so far."""
        if self.plan.max_minutes is None:
            return
        planned = self.plan.total_steps(self.training.batches_per_epoch)
        seconds = self.plan.max_minutes * 60
        self.total_steps = self.clock.fit_steps(self.step, planned, seconds)
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
            return self.clock.now - self.clock.evaluated_at >= plan.eval_throttle_secs
        if plan.steps_between_evals is not None:
            return self.step % plan.steps_between_evals == 0
        return self.batch == 0 and self.epoch % plan.epochs_between_evals == 0

    def _evaluate(self):
        """Measure on validation, keep the best, save the latest, and say so."""
        self.run_logger.pause()
        self.average_statistics()
        training = self.totals.means()
        self.totals.reset()
        epoch = self.epoch + (self.batch > 0)
        with self.averages.in_place() if self.averages else contextlib.nullcontext():
            validation, examples = self._measure(self.evaluator, self.seen.validation)
            if not examples:
                raise DataError("the validation split is empty: the best model cannot be told")
            check_validation(validation, self.step, self.learning_rate_at)
            is_best = self.keeper.keep(self.network, epoch, self.step, validation, self.changing)
        if self.patience.judge(validation):
            factor = self.learning_rate.factor
            factor.assign(factor * self.plan.goal.plateau_factor)
            self.report("on a plateau: the learning rate falls")
        self.rows = self.run_logger.add_evaluation(
            epoch, self.step, self._rate(), training, validation
        )
        self.run_logger.show_network(self.step, self.network)
        unsaved = self.clock.now - self.clock.saved_at
        if self.changing is None or unsaved > _SECONDS_UNSAVED or self._is_over():
            self._save()
        self.run_logger.tell_evaluation(self.rows[-1], is_best)
        self.clock.agree()
        self.clock.evaluated_at = self.clock.now
        self.run_logger.go_on()

    def _save(self):
        """Keep the best, if it is only remembered, and the latest: in this order."""
        self.keeper.write(self.network)
        save(self)

    def variables(self):
        """Return all that a step changes, in a stable order."""
        return [
            *self.network.variables,
            *self.optimizer.variables,
            *self.learning_rate.variables,
            *(self.averages.variables if self.averages else ()),
            *self.totals.variables,
        ]


def _bytes_of(variables):
    return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in variables)
