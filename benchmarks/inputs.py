"""Input pipeline: images per second, against decoding alone and against Keras; memory growth.

    python -m benchmarks.inputs [--photographs FOLDER] [--images 400] [--rounds 5]

Makes 500 x 375 JPEGs of about 100 kB each, the size of ImageNet's, unless a folder of class folders
is given. All contenders run in one process, in turn. Rates are medians; ratios are medians over the
rounds, so that slow phases of the machine cancel out. `cpu` ratios compare the processor time per
image, which other work on the machine disturbs less. The last line is one JSON object.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from library.dataset.manifest import Manifest, read_manifest
from library.inputs.decoding import ImageFormat
from library.inputs.examples import ShardSource, make_source
from project.augmentations import choose_augmentations
from project.inputs import TrainingPipeline

# Makes the dataset of an epoch, whose elements are images or batches of them.
Epoch = Callable[[int], tf.data.Dataset]
SIZE, BATCH = 224, 32
CROP_AND_FLIP = ("distorted_crop", "flip")
COLOR = (*CROP_AND_FLIP, "brightness", "contrast", "saturation", "hue")
EPOCHS = 10
# Repetitions of the images in an epoch, so that its start weighs as little as usual.
TIMES = 10


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs with the spectrum of photographs: the larger a shape, the stronger it is."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.normal(0, 9, (375, 500, 3))
        for edge in (4, 8, 16, 32, 64, 128, 256):
            coarse = random.normal(0, 1, (375 // edge + 2, 500 // edge + 2, 3)).astype(np.float32)
            planes = [Image.fromarray(coarse[..., each]) for each in range(3)]
            smooth = [each.resize((500, 375), Image.Resampling.BICUBIC) for each in planes]
            pixels += 3 * edge**0.6 * np.stack(smooth, -1)
        path = folder / f"class_{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        image.save(path, quality=95)


def convert(folder: Path, shards: Path) -> Manifest:
    """Convert the images without shrinking them."""
    import convert_dataset

    arguments = ["--dataset_dir", str(folder), "--tfrecord_filename", "train", "--max_edge", "0"]
    convert_dataset.main([*arguments, "--tfrecord_dir", str(shards), "--num_shards", "4"])
    return read_manifest(shards, "train")


def decoding(source: ShardSource) -> Epoch:
    """Read the shards and decode whole images, nothing else."""

    def decode(key):
        example = {"image/encoded": tf.io.FixedLenFeature((), tf.string)}
        encoded = tf.io.parse_single_example(key, example)["image/encoded"]
        return tf.io.decode_jpeg(encoded, channels=3)

    # With as much parallelism as TensorFlow finds best.
    autotuned = tf.data.Options()
    autotuned.autotune.enabled = True
    images = source.keys().map(decode, tf.data.AUTOTUNE).prefetch(BATCH)
    return lambda epoch: images.with_options(autotuned)


def training(source: ShardSource, words: Sequence[str]) -> TrainingPipeline:
    """Read, crop, augment and batch as in training, in the deterministic order."""
    return TrainingPipeline(
        source,
        ImageFormat(SIZE, 3),
        BATCH,
        shuffle_examples=100,
        seed=0,
        augmentations=choose_augmentations(words),
    )


def keras_pipeline(folder: Path, edge: int, layers: list[keras.Layer]) -> Epoch:
    """Read folders, resize whole images to `edge`, and augment with layers of Keras."""
    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(edge, edge), batch_size=BATCH, seed=0, verbose=False
    )

    def augment(batch, labels):
        for layer in layers:
            batch = layer(batch, training=True)
        return batch, labels

    batches = images.repeat(TIMES).map(augment, tf.data.AUTOTUNE).prefetch(2)
    return lambda epoch: batches


def keras_pipelines(folder: Path) -> dict[str, Epoch]:
    """Return what in Keras is nearest to a distorted crop with a flip, and a cheaper pipeline.

    The first translates, and zooms height and width independently; the second changes neither
    scale nor aspect ratio.
    """
    flip = keras.layers.RandomFlip("horizontal", seed=0)
    translate = keras.layers.RandomTranslation(0.15, 0.15, seed=0)
    zoom = keras.layers.RandomZoom((-0.3, 0.0), (-0.3, 0.0), seed=0)
    crop = keras.layers.RandomCrop(SIZE, SIZE, seed=0)
    return {
        "keras": keras_pipeline(folder, SIZE, [translate, zoom, flip]),
        "keras_fixed_crop": keras_pipeline(folder, 256, [crop, flip]),
    }


def measure(batches: tf.data.Dataset, count: int) -> tuple[float, float]:
    """Return (images per second, processor seconds per image) over one epoch of `count` images."""
    start, worked = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start), (time.process_time() - worked) / count


def compare(contenders: dict[str, Epoch], count: int, rounds: int) -> dict[str, np.ndarray]:
    """Measure all contenders in turn; return rates and processor seconds, (rounds, 2), by name."""
    measured = {name: [] for name in contenders}
    # Round 0 warms up.
    for each in range(rounds + 1):
        for name, batches in contenders.items():
            measured[name].append(measure(batches(each), count))
    return {name: np.array(values[1:]) for name, values in measured.items()}


def resident_megabytes() -> float:
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    raise OSError("/proc/self/status has no VmRSS")


def measure_memory(inputs: TrainingPipeline) -> list[int]:
    """Return the resident megabytes after each epoch."""
    after = []
    for epoch in range(EPOCHS):
        for _ in inputs.batches(epoch):
            pass
        gc.collect()
        after.append(round(resident_megabytes()))
    return after


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="folder of class folders of JPEGs")
    parser.add_argument("--images", type=int, default=400, help="number of images to make")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.photographs or Path(temporary) / "photographs"
        if not options.photographs:
            make_photographs(folder, options.images)
        manifest = convert(folder, Path(temporary) / "shards")
        source = make_source(manifest)
        source = replace(source, paths=source.paths * TIMES, counts=source.counts * TIMES)
        contenders = {
            "decode": decoding(source),
            "crop_flip": training(source, CROP_AND_FLIP).batches,
            "color": training(source, COLOR).batches,
            **keras_pipelines(folder),
        }
        figures = compare(contenders, source.count, options.rounds)
        for name, values in figures.items():
            rate, seconds = np.median(values, axis=0)
            print(f"{name:16} {rate:8,.0f} images/s  {1e6 * seconds:8,.0f} us of processor time")
        memory = measure_memory(training(source, COLOR))
        print(f"resident MB after each epoch: {memory}")
        print(f"{source.mean_bytes:,} bytes an image")

    def ratio(one, other):
        rates = figures[one][:, 0] / figures[other][:, 0]
        seconds = figures[other][:, 1] / figures[one][:, 1]
        return {"wall": round(np.median(rates), 3), "cpu": round(np.median(seconds), 3)}

    result = {
        "crop_flip_over_decode": ratio("crop_flip", "decode"),
        "crop_flip_over_keras": ratio("crop_flip", "keras"),
        "crop_flip_over_keras_fixed_crop": ratio("crop_flip", "keras_fixed_crop"),
        "color_cost": {each: round(1 / of, 3) for each, of in ratio("color", "crop_flip").items()},
        # The first epochs fill buffers and memory pools.
        "memory_growth": round(memory[-1] / memory[2], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
