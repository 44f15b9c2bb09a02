"""A training so small that a test may make many of them, and what to compare them by."""

import dataclasses
import os
import signal

import keras
import numpy as np
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.inputs.interfaces import SplitInputs
from library.models.features import CachedFeatures
from library.training.ema import ExponentialMovingAverage, values_of
from library.training.parts import Parts, RunInputs
from library.training.plan import Plan, RunPaths
from library.training.trainer import Trainer
from project.hyperparameters import Hyperparameters
from project.objective import Objective
from project.optimizers import OptimizerOptions, make_optimizer
from project.schedules import LearningRate

EXAMPLES, BATCH, EPOCHS = 22, 8, 3
random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (EXAMPLES, 4, 4, 1), np.uint8)
LABELS = (IMAGES.mean((1, 2, 3)) > 127).astype(np.int64)


@dataclasses.dataclass
class Inputs:
    """Training inputs in memory, in an order that is a function of the epoch alone."""

    examples: int = EXAMPLES
    batch_size: int = BATCH
    batches_per_epoch: int = -(-EXAMPLES // BATCH)
    order: list | None = None

    def batches(self, epoch, start_batch=0):
        order = np.random.default_rng(epoch).permutation(EXAMPLES)
        data = without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES[order], LABELS[order])))
        return data.batch(BATCH).skip(start_batch)

    preview_batches = batches


class Validation:
    """Evaluation inputs: the same images, in order."""

    batch_size = 6

    def __init__(self, images=IMAGES, labels=LABELS):
        self.data = images, labels
        self.examples = len(images)

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


def make_plan(**plan):
    """Return a Plan of three epochs that saves as by default."""
    saving = {"save_summary_steps": 100, "save_checkpoints_secs": 600, "keep_checkpoint_max": 3}
    return Plan(**{"train_epochs": EPOCHS, **saving, **plan})


def make_paths(folder, classes=("a", "b")):
    """Return the paths of a run that writes all below one folder."""
    return RunPaths(folder, folder / "checkpoints", folder / "best", classes)


def make_run(
    folder,
    training=None,
    validation=None,
    *,
    trainer=Trainer,
    network=make_network,
    classes=("a", "b"),
    hyperparameters=None,
    ema_decay=None,
    devices=None,
    is_cached=False,
    loss_scale=None,
    paths=None,
    listeners=None,
    split_metric=None,
    **plan,
):
    """Return a Trainer (or another class) of three epochs of three steps."""
    plan = make_plan(**{"keep_checkpoint_max": 2, **plan})
    inputs = RunInputs(training or Inputs(), validation or Validation())
    values = Hyperparameters(**{"learning_rate": 0.05, **(hyperparameters or {})}).model_dump()
    steps_per_epoch = inputs.training.batches_per_epoch
    schedule = LearningRate(
        values["learning_rate_decay_type"],
        values,
        total_steps=plan.total_steps(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
    )
    network = network()
    options = OptimizerOptions(devices.replicas if devices else 1, loss_scale)
    weights = network.trainable_variables
    # As if the whole network were a head.
    cached = CachedFeatures(network, None, lambda _: SplitInputs(*inputs)) if is_cached else None
    parts = Parts(
        network,
        Objective(),
        make_optimizer(values["optimizer"], schedule, values, weights, options),
        schedule,
        ExponentialMovingAverage(network, ema_decay) if ema_decay else None,
        cached_features=cached,
        split_metric=split_metric,
    )
    files = {"texts": {"project.yaml": "x"}, "settings": {"lr": values["learning_rate"]}}
    run_paths = dataclasses.replace(make_paths(folder, classes), **files | (paths or {}))
    return trainer(parts, inputs, plan, run_paths, devices, listeners)


def everything(run):
    """All that must be equal: variables, position, best, history (but for the clock's column)."""
    state = run.state
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in state.rows]
    return (
        values_of(run.checkpoints.variables()),
        (state.step, state.epoch, state.batch),
        state.best,
        rows,
    )


def assert_same(run, other):
    (variables, *rest), (other_variables, *other_rest) = everything(run), everything(other)
    assert rest == other_rest
    names = run.checkpoints.variables()
    for variable, mine, theirs in zip(names, variables, other_variables, strict=True):
        assert np.array_equal(mine, theirs), variable.name


def stopping_run(folder, step, number=signal.SIGTERM, **options):
    """A run to which a signal comes while it makes `step`."""
    run = make_run(folder, **options)
    after_steps = run.after_steps

    def stop_after_steps(losses, count, input_wait=None):
        if run.state.step < step <= run.state.step + count:
            os.kill(os.getpid(), number)
        after_steps(losses, count, input_wait)

    run.after_steps = stop_after_steps
    return run


def refuse_to_train(run):
    """Make a run fail if it makes a step."""

    def fail():
        raise AssertionError("trained again")

    run.make_steps = fail
    return run


def saved_steps(run):
    """The steps of the checkpoints of a run, as they come."""
    steps, save = [], run.checkpoints.save
    run.checkpoints.save = lambda state, *more: (steps.append(state.step), save(state, *more))
    return steps
