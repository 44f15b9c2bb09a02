"""The training loop: epochs, evaluation, the best kept, the latest saved. Reads top to bottom."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from library.errors import CheckpointError, DataError, DivergedError
from library.evaluation.measuring import Evaluator
from library.training import snapshots
from library.training.checkpoints import Checkpoints, read_state, read_variables
from library.training.history import History, Progress, report
from library.training.steps import Totals, make_train_step
from library.training.stopping import StopSignals


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to do what."""

    train_epochs: int
    epochs_between_evals: int = 1
    max_train_steps: int | None = None
    max_eval_steps: int | None = None
    save_summary_steps: int = 100
    save_checkpoints_secs: float = 600
    keep_checkpoint_max: int = 3
    resume: str = "auto"  # auto, must

    def total_steps(self, batches_per_epoch):
        """Give the number of steps after which training is finished."""
        steps = self.train_epochs * batches_per_epoch
        return steps if self.max_train_steps is None else min(steps, self.max_train_steps)


@dataclass(frozen=True)
class Keeping:
    """Where a run keeps what, and what it writes beside the networks that it keeps."""

    run_dir: Path
    checkpoints: Path
    best: Path
    classes: tuple
    # Files for the snapshot, by name: the settings.
    texts: dict
    # Key → value, to tell on a resume what has changed since.
    settings: dict


class Training:
    """One run, from wherever it stopped to its end.

    `training` and `validation` are as TrainingInputs and EvaluationInputs in project/inputs.py.
    """

    def __init__(
        self, network, objective, optimizer, training, validation, plan, keeping, *, xla=False
    ):
        self.network = network
        self.optimizer = optimizer
        self.training = training
        self.validation = validation
        self.plan = plan
        self.keeping = keeping
        self.totals = Totals(objective.names)
        self.train_step = make_train_step(network, objective, optimizer, self.totals, xla=xla)
        self.evaluator = Evaluator(network, objective, xla=xla)
        self.objective = objective
        self.checkpoints = Checkpoints(keeping.checkpoints, plan.keep_checkpoint_max)
        self.total_steps = plan.total_steps(training.batches_per_epoch)
        # Where the run is: the epoch and the batch within it that come next.
        self.step = self.epoch = self.batch = 0
        self.best = None  # the metrics.json of the best snapshot
        self.rows = []
        optimizer.build(network.trainable_variables)

    def run(self):
        """Train to the end. Give the best snapshot's metrics, as in its metrics.json.

        Raises StoppedError after a signal (the state is saved), DivergedError when the loss is no
        longer a number (the best is kept), CheckpointError when what is there does not fit.
        """
        self._resume()
        self._check_stored_best()
        if self.step >= self.total_steps and not self._evaluation_is_due():
            report(f"finished already, after {self.step} steps; more train_epochs would go on")
            return self.best
        self.history = History(self.keeping.run_dir, self.rows)
        batch_size, examples = self.training.batch_size, self.training.examples
        total_images = self.total_steps * examples // self.training.batches_per_epoch
        done_images = self.epoch * examples + self.batch * batch_size
        self.progress = Progress(total_images, done_images)
        self.saved_at = time.monotonic()
        try:
            with StopSignals() as stop:
                while True:
                    # First: a run stopped at an epoch's very end has not evaluated it yet.
                    if self._evaluation_is_due():
                        self._evaluate()
                    if self.step >= self.total_steps:
                        break
                    self._train_epoch(stop)
        finally:
            self.progress.close()
            self.history.close()
        return self.best

    def _resume(self):
        path = self.checkpoints.find_latest(report)
        if path is None:
            if self.plan.resume == "must":
                raise CheckpointError(
                    f"no checkpoint in {self.checkpoints.folder}, and --resume must wants one"
                )
            return
        state = read_state(path)
        check_classes(path, state["classes"], self.keeping.classes)
        read_variables(path, self._variables())
        self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
        self.best, self.rows = state["best"], state["rows"]
        report(f"going on from {path}: epoch {self.epoch + 1}, step {self.step}")
        for key, value in self.keeping.settings.items():
            before = state["settings"].get(key)
            if before != value:
                report(f"changed since: {key} was {before}, is {value}")

    def _check_stored_best(self):
        """Evaluate the stored best again: a restart must not lose it to something worse."""
        folder = self.keeping.best
        if not snapshots.has_snapshot(folder):
            return
        stored = snapshots.read_snapshot(folder)
        check_classes(folder, stored.classes, self.keeping.classes)
        if stored.network.input_shape != self.network.input_shape:
            raise CheckpointError(
                f"the snapshot in {folder} takes images of shape {stored.network.input_shape[1:]}, "
                f"this run {self.network.input_shape[1:]}: choose another --run_dir"
            )
        evaluator = Evaluator(stored.network, self.objective)
        validation, _ = evaluator.measure(self.validation.batches(), self.plan.max_eval_steps)
        self.best = {**stored.metrics, "value": validation["loss"], "validation": validation}
        report(
            f"best so far, in {folder}: validation loss {validation['loss']:.4f} "
            f"(epoch {stored.metrics['epoch']})"
        )

    def _train_epoch(self, stop):
        """Train to the end of the epoch, or of the whole plan."""
        self.progress.describe(f"epoch {self.epoch + 1}/{self.plan.train_epochs}")
        previous = None
        for images, labels in self.training.batches(self.epoch, self.batch):
            loss = self.train_step(images, labels)
            self.step += 1
            self.batch += 1
            self.progress.add(int(labels.shape[0]))
            # Looking at the step before: waiting for this one would leave the device idle.
            self._check_finite(previous, self.step - 1)
            previous = loss
            if self.step % self.plan.save_summary_steps == 0:
                self._summarize(loss)
            if stop.received:
                break
            if self.step == self.total_steps:
                break
            if time.monotonic() - self.saved_at > self.plan.save_checkpoints_secs:
                self._check_finite(loss, self.step)
                self._save()
        self._check_finite(previous, self.step)
        if self.batch == self.training.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        elif not stop.received and self.step < self.total_steps:
            raise DataError(
                f"epoch {self.epoch + 1} ended after {self.batch} of "
                f"{self.training.batches_per_epoch} batches: the shards hold fewer examples than "
                "their manifest says; convert again"
            )
        if stop.received:
            self._save()
            raise stop.error(f"in epoch {self.epoch + 1}, after step {self.step}")

    def _check_finite(self, loss, step):
        if loss is None or math.isfinite(loss):
            return
        raise DivergedError(
            f"the loss is {float(loss)} at step {step}, learning rate "
            f"{float(self.optimizer.learning_rate):g}: try a smaller --learning_rate; "
            "the best and the last checkpoint are kept"
        )

    def _summarize(self, loss):
        rate = float(self.optimizer.learning_rate)
        self.history.add_training_step(self.step, {"loss": float(loss), "learning_rate": rate})

    def _evaluation_is_due(self):
        if self.step == (self.rows[-1]["step"] if self.rows else 0):
            return False
        if self.step >= self.total_steps:
            return True
        return self.batch == 0 and self.epoch % self.plan.epochs_between_evals == 0

    def _evaluate(self):
        """Measure on validation, keep the best, save the latest, and say so."""
        self.progress.pause()
        batches = self.validation.batches()
        validation, examples = self.evaluator.measure(batches, self.plan.max_eval_steps)
        if not examples:
            raise DataError("the validation split is empty: the best model cannot be told")
        training = self.totals.means()
        self.totals.reset()
        epoch = self.epoch + (self.batch > 0)
        row = {
            "epoch": epoch,
            "step": self.step,
            "learning_rate": float(self.optimizer.learning_rate),
            "images_per_second": round(self.progress.take_images_per_second(), 1),
        }
        self.history.add_evaluation(row, training, validation)
        self.rows = self.history.rows
        best = self._keep_best(epoch, validation)
        self._save()
        report(
            f"epoch {epoch}/{self.plan.train_epochs}  loss {training['loss']:.4f}  "
            f"accuracy {training['accuracy']:.4f}  validation loss {validation['loss']:.4f}  "
            f"accuracy {validation['accuracy']:.4f}  {row['images_per_second']:,.0f} images/s"
            f"{'  best' if best else ''}"
        )
        self.progress.go_on()

    def _keep_best(self, epoch, validation):
        """Save a snapshot if the validation loss is the lowest so far. Say whether it was."""
        value = validation["loss"]
        # NaN compares false, so it never wins.
        if not value < (self.best["value"] if self.best else math.inf):
            return False
        metrics = {
            "epoch": epoch,
            "step": self.step,
            "monitored": "validation loss",
            "value": value,
            "validation": validation,
        }
        keeping = self.keeping
        snapshots.write_snapshot(
            keeping.best, self.network, keeping.classes, metrics, keeping.texts
        )
        # Last: a crash while saving keeps the old best.
        self.best = metrics
        return True

    def _variables(self):
        """Give all that a step changes, in a stable order."""
        return [*self.network.variables, *self.optimizer.variables, *self.totals.variables]

    def _save(self):
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "best": self.best,
            "rows": self.rows,
            "classes": list(self.keeping.classes),
            "settings": self.keeping.settings,
        }
        self.checkpoints.save(self.step, self._variables(), state)
        self.saved_at = time.monotonic()


def check_classes(where, stored, wanted):
    """Raise CheckpointError, naming the difference, unless both lists of classes are the same."""
    stored, wanted = list(stored), list(wanted)
    if stored == wanted:
        return
    gone = [each for each in stored if each not in wanted]
    new = [each for each in wanted if each not in stored]
    difference = "; ".join(
        f"{words} {', '.join(map(repr, names[:5]))}{' …' if names[5:] else ''}"
        for words, names in (("only there:", gone), ("only in the data:", new))
        if names
    )
    raise CheckpointError(
        f"{where} was made for other classes ({difference or 'in another order'}): "
        "choose another --run_dir"
    )
