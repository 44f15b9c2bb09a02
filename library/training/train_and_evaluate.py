"""Train and evaluate: the one function behind the command line, for a notebook as well.

plan, keeping = Plan(train_epochs=3), Keeping.below("out/notebook", classes=("cat", "dog"))
train_and_evaluate(network, (training, validation), Objective(), "adam", plan, keeping)
"""

from contextlib import nullcontext

import keras
import tensorflow as tf

from library.errors import SettingsError, reason_of
from library.figures.training_curves import write_curves
from library.logging import report
from library.messages import choose, counted, counted_classes
from library.training.distribution import Devices
from library.training.keras_fit import KerasFitTrainer
from library.training.run_directory import locked_run
from library.training.steps import accumulated_steps
from library.training.trainer import Trainer

ENGINES = {"loop": Trainer, "fit": KerasFitTrainer}


def train_and_evaluate(
    network,
    inputs,
    objective,
    optimizer,
    plan,
    paths,
    *,
    engine="loop",
    learning_rate=None,
    averages=None,
    devices=None,
    **more,
):
    """Train, from wherever an earlier call stopped, and keep the best snapshot.

    `inputs` are two: the training and the validation split, as TrainingInputs and EvaluationInputs
    in project/inputs.py. `optimizer` is one of Keras's, or its name; `learning_rate` its schedule,
    if it is a LearningRate of project/schedules.py. `averages` and `more` are as in Training of
    library/training/trainer.py. Returns the best snapshot's metrics, as in its metrics.json.
    """
    make = choose("engine", engine, ENGINES)
    devices = devices or Devices()
    with devices.strategy.scope():
        optimizer = _known(optimizer)
        learning_rate = learning_rate or NoSchedule(plan)
    # Before an earlier run is set aside.
    steps = plan.total_steps(inputs[0].batches_per_epoch)
    for line in plan.check(steps, accumulated_steps(optimizer), objective.names):
        if devices.is_chief:
            report(line)
    with locked_run(paths, plan.resume) if devices.is_chief else nullcontext() as aside:
        if aside:
            report(f"the earlier run is now in {', '.join(map(str, aside))}")
        parts = (network, objective, optimizer, learning_rate, averages)
        run = make(*parts, *inputs, plan, paths, devices=devices, **more)
        try:
            return run.run()
        finally:
            if devices.is_chief:
                best_epoch = run.best and run.best["epoch"]
                try:
                    write_curves(paths.run_dir / "curves.svg", run.rows, best_epoch)
                except OSError as error:
                    report(f"warning: no curves.svg ({reason_of(error)}); all else is kept")


def _known(optimizer):
    try:
        return keras.optimizers.get(optimizer)
    except ValueError:
        raise SettingsError(
            f"optimizer {optimizer!r} is none of Keras's: give one, or its name, such as 'adam'"
        ) from None


class NoSchedule:
    """Stands for the schedule of an optimizer that keeps to a course of its own."""

    def __init__(self, plan):
        if plan.goal.plateau_patience is not None:
            raise SettingsError("plateau_patience needs a learning_rate that can be made to fall")
        self.total_steps = tf.Variable(0.0, trainable=False)
        self.factor = tf.Variable(1.0, trainable=False)
        self.variables = ()


def run_summary(network, classes, training, validation, devices):
    """Return one line for the start: the network, the data and the devices."""
    return (
        f"{network.name}: {network.count_params():,} parameters; {counted_classes(len(classes))}, "
        f"{training.examples:,} training and {counted(validation.examples, 'validation image')}, "
        f"{counted(training.batches_per_epoch, 'step')} of {training.batch_size} an epoch, "
        f"on {devices.describe(training.batch_size)}"
    )


def check_one_batch(network, objective, training, validation):
    """Run one batch of each split through the network. Give one line with the shapes."""
    words = []
    for name, batches in (("training", training.batches(0)), ("validation", validation.batches())):
        images, labels = next(iter(batches))
        scores = network(tf.cast(images, tf.float32), training=False)
        objective.metrics(labels, scores)
        words.append(f"{name} images {tuple(images.shape)} → scores {tuple(scores.shape)}")
    return "dry run, nothing written: " + ", ".join(words)
