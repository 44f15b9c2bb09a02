"""Input pipelines: the project's, decoding alone, and Keras's; and the project's memory growth.

`python -m benchmarks.inputs SHARDS` prints the resident memory after each of ten epochs.
benchmarks/cases.yaml says what is compared.
"""

import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import psutil
import tensorflow as tf

from benchmarks.programs import convert
from library.dataset.manifest import read_manifest
from library.inputs.decoding import ImageFormat
from library.inputs.examples import ShardSource, make_source
from project.augmentations import choose_augmentations
from project.inputs import TrainingPipeline

SIZE, BATCH = 224, 32
# Repetitions of the images in an epoch, so that its start weighs as little as usual.
TIMES = 6


def convert_whole(folder: str, images: str) -> None:
    """Convert the images without shrinking them."""
    convert("train", images, folder, "--num_shards", "4", "--max_edge", "0")


def read_shards(folder: str) -> ShardSource:
    """Return the converted images, repeated."""
    source = make_source(read_manifest(Path(folder), "train"))
    return replace(source, paths=source.paths * TIMES, counts=source.counts * TIMES)


def decode(folder: str) -> Iterator[int | None]:
    """Read the shards and decode whole images, nothing else."""
    source = read_shards(folder)

    def decode_record(key: tf.Tensor) -> tf.Tensor:
        example = {"image/encoded": tf.io.FixedLenFeature((), tf.string)}
        encoded = tf.io.parse_single_example(key, example)["image/encoded"]
        return tf.io.decode_jpeg(encoded, channels=3)

    # With as much parallelism as TensorFlow finds best.
    autotuned = tf.data.Options()
    autotuned.autotune.enabled = True
    images = source.keys().map(decode_record, tf.data.AUTOTUNE).prefetch(BATCH)
    yield from drain(images.with_options(autotuned), source.count)


def make_pipeline(folder: str, augmentations: str) -> TrainingPipeline:
    """Read, crop, augment and batch as in training, in the deterministic order."""
    return TrainingPipeline(
        read_shards(folder),
        ImageFormat(SIZE, 3),
        BATCH,
        shuffle_examples=100,
        seed=0,
        augmentations=choose_augmentations(augmentations.split(",")),
    )


def ours(folder: str, augmentations: str) -> Iterator[int | None]:
    """Run one epoch of the project's pipeline."""
    pipeline, epoch = make_pipeline(folder, augmentations), 0
    count = read_shards(folder).count
    while True:
        yield
        for _ in pipeline.batches(epoch):
            pass
        yield count
        epoch += 1


def drain(batches: tf.data.Dataset, count: int) -> Iterator[int | None]:
    """Run one epoch of a dataset of `count` images."""
    while True:
        yield
        for _ in batches:
            pass
        yield count


def keras_pipeline(folder: str) -> Iterator[int | None]:
    """Read class folders, resize whole images, and augment with layers of Keras.

    They do what is nearest to a distorted crop with a flip: move, zoom each axis, flip.
    """
    layers = (
        keras.layers.RandomTranslation(0.15, 0.15, seed=0),
        keras.layers.RandomZoom((-0.3, 0.0), (-0.3, 0.0), seed=0),
        keras.layers.RandomFlip("horizontal", seed=0),
    )
    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=BATCH, seed=0, verbose=False
    )
    count = len(images.file_paths)

    def augment(batch: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in layers:
            batch = layer(batch, training=True)
        return batch, labels

    return drain(images.map(augment, tf.data.AUTOTUNE).prefetch(2), count)


def main() -> None:
    """Print the resident megabytes after each epoch with all augmentations of color."""
    words = "distorted_crop,flip,brightness,contrast,saturation,hue"
    pipeline = make_pipeline(sys.argv[1], words)
    for epoch in range(10):
        for _ in pipeline.batches(epoch):
            pass
        gc.collect()
        print(f"epoch {epoch + 1}: {psutil.Process().memory_info().rss / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
