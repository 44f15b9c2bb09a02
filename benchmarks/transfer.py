"""Transfer learning compared with Keras's own ways, on generated images. About three minutes.

1. Twenty epochs of a new head on a frozen MobileNetV2 at 224 pixels with 500 images: our command
   line, which caches features, against Keras's transfer-learning tutorial, which runs the base in
   every epoch of `Model.fit`. Weights, images, head, optimizer and batch size (32) are the same.
   Both build the base and read its weights from a file; ours also saves checkpoints, snapshots and
   logs, but writes no report at the end. Three of the tutorial's epochs, which all do the same
   work, are timed, and the later two stand for the rest; its accuracy is that of its head after all
   twenty, on the features of its base. `--tutorial_epochs 20` times them all; `--images 400` takes
   2,000 images, so that start-up, tracing and saving weigh less.
2. Fine-tuning MobileNetV2 from a SavedModel through HubLayer against the network of
   keras.applications itself: alternating steps, the median of the ratios of neighbors.

The last line is one JSON object of ratios; more than 1 is in our favor.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import convert_dataset
import run
from library.models.hub_layer import HubLayer
from library.saving.snapshots import read_snapshot

SIZE, BATCH, RATE = 224, 32, 1e-2
# Images a class of each split.
SPLITS = {"train": 100, "validation": 20}
CLASSES = 5


def main() -> None:
    """Measure both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tutorial_epochs", type=int, default=3, help="2 or more; timed of them")
    parser.add_argument("--images", type=int, default=100, help="training images of each class")
    parser.add_argument("--steps", type=int, default=15, help="fine-tuning steps of each network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", {**SPLITS, "train": options.images})
        ratios = compare_frozen(Path(folder), options.epochs, options.tutorial_epochs)
        ratios |= compare_fine_tuning(Path(folder), options.steps)
    print(json.dumps(ratios))


def compare_frozen(folder: Path, epochs: int, timed_epochs: int) -> dict[str, float]:
    """Return how much faster cached features are, and the ratio of accuracies."""
    base = make_mobilenet(SIZE)
    weights = folder / "base.weights.h5"
    settle_statistics(base, folder / "images")
    base.save_weights(weights)
    ours, accuracy = train_ours(folder, weights, epochs)
    show("ours", ours, accuracy)
    theirs, their_accuracy = train_as_the_tutorial(weights, folder / "images", epochs, timed_epochs)
    show("tutorial", theirs, their_accuracy)
    return {
        "frozen_speed": round(theirs[0] / ours[0], 2),
        "frozen_cpu": round(theirs[1] / ours[1], 2),
        "frozen_accuracy": round(accuracy / their_accuracy, 3),
    }


def show(name: str, seconds: tuple[float, float], accuracy: float) -> None:
    """Print the time and the accuracy of one way."""
    wall, cpu = seconds
    print(f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU, accuracy {accuracy:.3f}", flush=True)


def timed(function, *arguments, **options) -> tuple[float, float]:
    """Return (seconds, CPU seconds) of a call; CPU seconds depend less on the machine's load."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(*arguments, **options)
    return time.perf_counter() - wall, time.process_time() - cpu


def train_ours(folder: Path, weights: Path, epochs: int) -> tuple[tuple[float, float], float]:
    """Return (times, validation accuracy) of our command line, including all it does."""
    for split in SPLITS:
        arguments = ["--dataset_dir", str(folder / "images" / split), "--tfrecord_filename", split]
        convert_dataset.main([*arguments, "--tfrecord_dir", str(folder / "data" / split)])
    given = {
        "data_dir": folder / "data",
        "run_dir": folder / "run",
        "model": "application",
        "application_weights": weights,
        "batch_size": BATCH,
        "train_epochs": epochs,
        "learning_rate": RATE,
        "learning_rate_decay_type": "fixed",
        "dropout_rate": 0.2,
        "l2_regularization": 0.0,
        "augmentations": "",
        "report": "false",
    }
    seconds = timed(run.main, ["train", *(f"--{name}={value}" for name, value in given.items())])
    return seconds, read_snapshot(folder / "run" / "best").metrics["validation"]["accuracy"]


class EpochTimes(keras.callbacks.Callback):
    """Record the (seconds, CPU seconds) of each epoch, including what preceded it."""

    def __init__(self):
        super().__init__()
        self.taken = []
        self._before = np.array([time.perf_counter(), time.process_time()])

    def on_epoch_end(self, epoch, logs=None):
        """Record the time of the epoch, including its validation."""
        now = np.array([time.perf_counter(), time.process_time()])
        self.taken.append(now - self._before)
        self._before = now


def train_as_the_tutorial(weights, images, epochs, timed_epochs):
    """Return (times, best validation accuracy) of the transfer-learning guide on keras.io."""
    times = EpochTimes()
    train, validation = (
        keras.utils.image_dataset_from_directory(
            images / split, image_size=(SIZE, SIZE), batch_size=BATCH, seed=0, verbose=False
        )
        .cache()
        .prefetch(tf.data.AUTOTUNE)
        for split in SPLITS
    )
    base = make_mobilenet(SIZE)
    base.load_weights(weights)
    base.trainable = False
    pixels = keras.Input((SIZE, SIZE, 3))
    features = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels), training=False)
    head = make_tutorial_head(features.shape[1])
    model = compiled(keras.Model(pixels, head(features)))
    given = {"verbose": 0, "shuffle": False}
    model.fit(train, validation_data=validation, epochs=timed_epochs, callbacks=[times], **given)
    first, *rest = times.taken
    frozen = keras.Model(pixels, features)
    cached = [
        tf.data.Dataset.from_tensors((frozen.predict(split, verbose=0), labels_of(split)))
        .unbatch()
        .batch(BATCH)
        for split in (train, validation)
    ]
    learner = compiled(make_tutorial_head(features.shape[1]))
    history = learner.fit(cached[0], validation_data=cached[1], epochs=epochs, **given).history
    # At the epoch with the lowest loss, like our snapshot.
    best = int(np.argmin(history["val_loss"]))
    return first + (epochs - 1) * np.mean(rest, axis=0), history["val_accuracy"][best]


def make_tutorial_head(size):
    """Return the guide's new layers: dropout and logits."""
    features = keras.Input((size,))
    scores = keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.2)(features))
    return keras.Model(features, scores)


def compiled(model):
    """Compile a model as the guide does, for more than two classes."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])
    return model


def labels_of(batches):
    """Return all labels of (images, labels) batches."""
    return np.concatenate([labels for _, labels in batches])


def compare_fine_tuning(folder: Path, steps: int) -> dict[str, float]:
    """Return the speed of steps through HubLayer over that of the network itself."""
    size, batch = 160, 16
    network = make_mobilenet(size)
    save_as_module(network, folder / "module", size)
    layer = HubLayer(folder / "module", trainable=True)
    learners = [make_step(each, size, batch) for each in (layer, network)]
    pairs = []
    for number in range(steps + 2):
        # Alternate which goes first, so that the machine's load affects both alike.
        order = (0, 1) if number % 2 else (1, 0)
        taken = {which: timed(learners[which]) for which in order}
        # The first two steps compile and warm up.
        if number > 1:
            pairs.append((taken[0], taken[1]))
    medians = np.median(pairs, axis=0)
    for name, (wall, cpu) in zip(("through HubLayer", "of the network"), medians, strict=True):
        print(f"a step {name}: {wall:.3f} s, {cpu:.3f} s of CPU", flush=True)
    wall, cpu = np.median([np.divide(theirs, ours) for ours, theirs in pairs], axis=0)
    return {"fine_tuning_speed": round(float(wall), 3), "fine_tuning_cpu": round(float(cpu), 3)}


def make_mobilenet(size):
    """Return MobileNetV2 without a top, with random weights."""
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )


def save_as_module(network, folder, size):
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


def make_step(base, size, batch):
    """Return a function that takes one training step of `base` and a linear head."""
    pixels = keras.Input((size, size, 3))
    model = keras.Model(pixels, keras.layers.Dense(CLASSES)(base(pixels)))
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)
    images = tf.random.uniform([batch, size, size, 3])
    labels = tf.zeros([batch], tf.int64)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            scores = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
            loss = tf.reduce_mean(losses)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    return lambda: step().numpy()


def settle_statistics(base, images):
    """Give the random base the statistics of these images, so that its features differ."""
    found = sorted((images / "train").glob("*/*.jpg"))[::16]
    pixels = np.stack([np.asarray(Image.open(each)) for each in found]).astype(np.float32)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):
        base(pixels / 127.5 - 1, training=True)
    # A random network has similar features for all images, so that a head learns little but noise.
    # Amplify what differs between images over what differs between positions.
    last = keras.Model(base.input, base.get_layer("Conv_1").output)
    seen = last.predict(pixels / 127.5 - 1, verbose=0).mean(axis=(1, 2))
    base.get_layer("Conv_1_bn").moving_mean.assign(seen.mean(axis=0))
    base.get_layer("Conv_1_bn").moving_variance.assign(25 * seen.var(axis=0))


def write_images(folder, counts):
    """Write noisy striped images, `counts` per class; a class has an angle and a tint."""
    random = np.random.default_rng(0)
    tints = random.uniform(50, 200, (CLASSES, 3))
    across, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    for split, count in counts.items():
        for number in range(CLASSES):
            target = folder / split / f"class_{number}"
            target.mkdir(parents=True)
            for each in range(count):
                angle = np.pi * (number + random.uniform(-0.5, 0.5)) / CLASSES
                phase = across * np.cos(angle) + down * np.sin(angle) + random.uniform(0, 99)
                stripes = np.sin(phase / random.uniform(3, 8))[..., None] * 40
                tint = tints[number] + random.normal(0, 12, 3)
                pixels = tint + stripes + random.normal(0, 30, (SIZE, SIZE, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(target / f"{each:03d}.jpg", quality=90)


if __name__ == "__main__":
    main()
