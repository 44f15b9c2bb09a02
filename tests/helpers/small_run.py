"""A training so small that a test may make many of them, and what to compare them by."""

import dataclasses
import os
import signal

import keras
import numpy as np
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.inputs.interfaces import SplitInputs as Seen
from library.models.features import CachedFeatures
from library.training.ema import ExponentialMovingAverage
from library.training.plan import Plan, RunPaths
from library.training.trainer import Trainer
from project.objective import Objective
from project.optimizers import make_optimizer
from project.schedules import LearningRate
from project.settings import Hyperparameters

EXAMPLES, BATCH, EPOCHS = 22, 8, 3
random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (EXAMPLES, 4, 4, 1), np.uint8)
LABELS = (IMAGES.mean((1, 2, 3)) > 127).astype(np.int64)


@dataclasses.dataclass
class Inputs:
    """Data in memory, in an order of (epoch) alone."""

    examples: int = EXAMPLES
    batch_size: int = BATCH
    batches_per_epoch: int = -(-EXAMPLES // BATCH)

    def batches(self, epoch, start_batch=0):
        order = np.random.default_rng(epoch).permutation(EXAMPLES)
        data = without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES[order], LABELS[order])))
        return data.batch(BATCH).skip(start_batch)


class Validation:
    """The same images, as they are."""

    batch_size = 6

    def __init__(self, images=IMAGES, labels=LABELS):
        self.data = images, labels

    def batches(self):
        return without_autotune(tf.data.Dataset.from_tensor_slices(self.data)).batch(
            self.batch_size
        )


def make_network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.3)(x)
    return keras.Model(pixels, keras.layers.Dense(2, dtype="float32")(x))


def make_run(
    folder,
    training=None,
    validation=None,
    *,
    classes=("a", "b"),
    hyperparameters=None,
    average_decay=None,
    devices=None,
    is_kept=False,
    loss_scale=None,
    **plan,
):
    plan = Plan(**{"train_epochs": EPOCHS, "keep_checkpoint_max": 2, **plan})
    training = training or Inputs()
    values = Hyperparameters(**{"learning_rate": 0.05, **(hyperparameters or {})}).model_dump()
    learning_rate = LearningRate(
        values["learning_rate_decay_type"],
        values,
        total_steps=plan.total_steps(training.batches_per_epoch),
        steps_per_epoch=training.batches_per_epoch,
    )
    network = make_network()
    weights = network.trainable_variables
    scaling = {"replicas": devices.replicas if devices else 1, "loss_scale": loss_scale}
    texts, settings = {"project.yaml": "x"}, {"lr": values["learning_rate"]}
    validation = validation or Validation()
    return Trainer(
        network,
        Objective(),
        make_optimizer(values["optimizer"], learning_rate, values, weights, **scaling),
        learning_rate,
        ExponentialMovingAverage(network, average_decay) if average_decay else None,
        training,
        validation,
        plan,
        RunPaths(folder, folder / "checkpoints", folder / "best", classes, texts, settings),
        # As if the whole network were a head.
        kept=CachedFeatures(network, lambda: Seen(training, validation)) if is_kept else None,
        devices=devices,
    )


def everything(run):
    """All that must be equal: variables, position, best, history (but for the clock's column)."""
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in run.rows]
    return (
        run.devices.read(run.variables()),
        (run.step, run.epoch, run.batch),
        run.best,
        rows,
    )


def assert_same(run, other):
    (variables, *rest), (other_variables, *other_rest) = everything(run), everything(other)
    assert rest == other_rest
    for variable, mine, theirs in zip(run.variables(), variables, other_variables, strict=True):
        assert np.array_equal(mine, theirs), variable.name


def stopping_run(folder, step, number=signal.SIGTERM, **options):
    """A run to which a signal comes while it makes `step`."""
    run = make_run(folder, **options)
    train_steps = run.train_steps

    def train_steps_and_stop(iterator, count):
        if run.step < step <= run.step + int(count):
            os.kill(os.getpid(), number)
        return train_steps(iterator, count)

    run.train_steps = train_steps_and_stop
    return run


def saved_steps(run):
    """The steps of the checkpoints of a run, as they come."""
    steps, save = [], run.checkpoints.save
    run.checkpoints.save = lambda step, *state: (steps.append(step), save(step, *state))
    return steps
