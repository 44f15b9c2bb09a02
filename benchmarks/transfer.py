"""Transfer learning: Keras's tutorial with a frozen MobileNetV2, and steps of fine-tuning.

The tutorial runs the base in every epoch of `Model.fit`. MobileNetV2's weights, images, head,
optimizer and batch size are those of `folder_to_model` in benchmarks/commands.py. A step of
MobileNetV2 loaded from a SavedModel through HubLayer is compared with one of the network itself.
benchmarks/cases.yaml says what is compared, and benchmarks/accuracy.py compares accuracies.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import tensorflow as tf

from benchmarks.commands import BATCH, RATE
from benchmarks.contender import share_of_epochs
from benchmarks.data import write_synthetic
from benchmarks.training import compile_model
from library.models.hub_layer import HubLayer

SIZE = 224
CLASSES = 5
# For steps of fine-tuning.
SMALL_SIZE, SMALL_BATCH = 160, 16


def prepare(folder: str, images: str) -> None:
    """Write images of 5 classes, `images` of each for training, and MobileNetV2 in two formats."""
    for split, count in (("train", int(images)), ("validation", max(1, int(images) // 5))):
        write_synthetic(f"{folder}/{split}", str(CLASSES * count), f"{SIZE}x{SIZE}", str(CLASSES))
    make_mobilenet(SIZE).save_weights(f"{folder}/base.weights.h5")
    save_as_module(make_mobilenet(SMALL_SIZE), Path(folder) / "module", SMALL_SIZE)


class EpochTimes(keras.callbacks.Callback):
    """Record when each epoch ended, its validation included, after when training began."""

    def __init__(self):
        super().__init__()
        self.times = [time.perf_counter()]

    def on_epoch_end(self, epoch, logs=None):
        """Record the time."""
        self.times.append(time.perf_counter())


def tutorial(folder: str, epochs: str, timed_epochs: str) -> Iterator[float | None]:
    """Train as the transfer-learning guide on keras.io does.

    All epochs do the same work, so that a few are measured and stand for the others.
    """
    yield
    times = EpochTimes()
    train, validation = (
        keras.utils.image_dataset_from_directory(
            f"{folder}/{split}", image_size=(SIZE, SIZE), batch_size=BATCH, seed=0, verbose=False
        )
        .cache()
        .prefetch(tf.data.AUTOTUNE)
        for split in ("train", "validation")
    )
    base = make_mobilenet(SIZE)
    base.load_weights(f"{folder}/base.weights.h5")
    base.trainable = False
    pixels = keras.Input((SIZE, SIZE, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels), training=False)
    scores = keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.2)(x))
    model = keras.Model(pixels, scores)
    compile_model(model, keras.optimizers.Adam(RATE))
    options = {"epochs": int(timed_epochs), "callbacks": [times], "verbose": 0}
    model.fit(train, validation_data=validation, **options)
    yield share_of_epochs(times.times, int(epochs))


def step_through_hub_layer(folder: str) -> Iterator[int | None]:
    """Fine-tune the SavedModel."""
    return make_step(HubLayer(Path(folder) / "module", trainable=True))


def step_of_network(folder: str) -> Iterator[int | None]:
    """Fine-tune the network of keras.applications."""
    return make_step(make_mobilenet(SMALL_SIZE))


def make_mobilenet(size: int) -> keras.Model:
    """Return MobileNetV2 without a top, with random weights."""
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )


def save_as_module(network: keras.Model, folder: Path, size: int) -> None:
    """Save a network in TensorFlow Hub's reusable format."""
    module = tf.train.Checkpoint(network=network)
    spec = tf.TensorSpec([None, size, size, 3], tf.float32)
    call = tf.function(lambda images, training=False: network(images, training=training))
    for training in (True, False):
        call.get_concrete_function(spec, training=training)
    module.__call__ = call
    module.variables = [each.value for each in network.variables]
    module.trainable_variables = [each.value for each in network.trainable_variables]
    tf.saved_model.save(module, str(folder))


def make_step(base: keras.Layer) -> Iterator[int | None]:
    """Take training steps of `base` and a linear head."""
    pixels = keras.Input((SMALL_SIZE, SMALL_SIZE, 3))
    model = keras.Model(pixels, keras.layers.Dense(CLASSES)(base(pixels)))
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)
    images = tf.random.uniform([SMALL_BATCH, SMALL_SIZE, SMALL_SIZE, 3])
    labels = tf.zeros([SMALL_BATCH], tf.int64)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            scores = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
            loss = tf.reduce_mean(losses)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    while True:
        yield
        for _ in range(3):
            loss = step()
        float(loss)
        yield 3
