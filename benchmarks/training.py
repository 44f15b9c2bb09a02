"""Training steps of this project and of Keras's `Model.fit`, and whole trainings with the latter.

All train the same network on the same data in memory with Adam; a plain script for
Keras trains on the sample. benchmarks/cases.yaml says what is compared.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import tensorflow as tf

from benchmarks.data import make_batches
from library.inputs.examples import without_autotune
from library.models.fused_normalization import fuse_batch_normalization
from library.training.adam import Adam
from library.training.parts import NoSchedule, Parts
from library.training.steps import MetricSums, make_train_steps
from project.hyperparameters import Hyperparameters
from project.networks import make_network
from project.objective import Objective

CLASSES = 10


def small(shape: tuple[int, int, int]) -> keras.Model:
    """Build the project's own small network."""
    return make_network("simple", shape, CLASSES, Hyperparameters().model_dump())


def mobilenet(shape: tuple[int, int, int]) -> keras.Model:
    """Build MobileNetV2 without weights, which a benchmark of speed does not need."""
    pixels = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    base = keras.applications.MobileNetV2(
        input_shape=shape, include_top=False, weights=None, pooling="avg"
    )
    return keras.Model(pixels, keras.layers.Dense(CLASSES)(base(x)))


# Name → (how to build it, shape of its images).
NETWORKS = {"small": (small, (28, 28, 1)), "mobilenet": (mobilenet, (224, 224, 3))}


def build(network: str, batch_size: int) -> tuple[keras.Model, tf.data.Dataset]:
    """Return a network, and batches for it from memory, repeated for ever."""
    make, shape = NETWORKS[network]
    # Ending a tuned iterator can take long.
    batches = without_autotune(
        tf.data.Dataset.from_tensor_slices(make_batches(shape, CLASSES, batch_size))
    )
    return make(shape), batches.batch(batch_size, drop_remainder=True).repeat().prefetch(4)


def ours(network: str, batch_size: str, steps_per_call: str, steps: str) -> Iterator[int | None]:
    """Make steps as the project's training loop does."""
    model, batches = build(network, int(batch_size))
    fuse_batch_normalization(model)
    optimizer = Adam(1e-3)
    optimizer.build(model.trainable_variables)
    count = int(steps_per_call)
    parts = Parts(model, Objective(), optimizer, NoSchedule(optimizer))
    train_steps = make_train_steps(parts, MetricSums(Objective.names), steps_per_execution=count)
    while True:
        yield
        iterator = iter(batches)
        for _ in range(0, int(steps), count):
            losses, _ = train_steps(iterator, count)
        float(losses[-1])
        yield int(steps)


def fit(network: str, batch_size: str, steps_per_call: str, steps: str) -> Iterator[int | None]:
    """Make steps with Keras's `Model.fit`."""
    model, batches = build(network, int(batch_size))
    compile_model(model, keras.optimizers.Adam(1e-3), steps_per_execution=int(steps_per_call))
    while True:
        yield
        model.fit(batches, steps_per_epoch=int(steps), epochs=1, verbose=0)
        yield int(steps)


def compile_model(model: keras.Model, optimizer: keras.Optimizer, **options: object) -> None:
    """Compile a classifier that returns logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False, **options)


def train_sample_with_fit(data: str, epochs: str, steps: str = "0") -> Iterator[int | None]:
    """Train the same network with `fit`, as a plain script would. Steps 0: whole epochs."""
    keras.utils.set_random_seed(0)
    given = {"color_mode": "grayscale", "image_size": (28, 28), "batch_size": 64, "seed": 0}
    train, validation = (
        keras.utils.image_dataset_from_directory(
            Path(data, "images", split), verbose=False, **given
        ).cache()
        for split in ("train", "validation")
    )
    layers = keras.layers
    augment = keras.Sequential(
        [layers.ZeroPadding2D(2), layers.RandomCrop(28, 28), layers.RandomFlip("horizontal")]
    )
    train = train.map(
        lambda images, labels: (augment(images, training=True), labels), tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)
    model = small((28, 28, 1))
    compile_model(model, keras.optimizers.Adam(2e-3))
    yield
    with tempfile.TemporaryDirectory() as folder:
        best = keras.callbacks.ModelCheckpoint(f"{folder}/best.keras", save_best_only=True)
        limits = {"steps_per_epoch": 1, "validation_steps": 1} if int(steps) else {}
        more = {"epochs": int(epochs), "callbacks": [best], "verbose": 0, **limits}
        model.fit(train, validation_data=validation, **more)
    yield 1
