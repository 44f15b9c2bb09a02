"""How fast training images arrive, against decoding alone and against Keras; how flat its memory.

    python -m benchmarks.inputs [--photographs FOLDER] [--images 400] [--rounds 5]

Makes 500 x 375 JPEGs of about 100 kB each, the size of ImageNet's, unless a folder of class folders
is given. All run in one process, in turns; rates are medians, and ratios the medians of each
round's: the machine's own moods cancel out. `cpu` ratios compare the processor time that an image
takes, which other work on the machine disturbs less. The last line is one JSON object.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from library.dataset.manifest import read_manifest
from library.inputs.decoding import ImageFormat
from library.inputs.examples import DEFAULT_OPTIONS, make_source
from project.augmentations import choose_augmentations
from project.inputs import TrainingPipeline

SIZE, BATCH = 224, 32
CROP_AND_FLIP = ("distorted_crop", "flip")
COLOR = (*CROP_AND_FLIP, "brightness", "contrast", "saturation", "hue")
EPOCHS = 10
# How often the images are gone through in an epoch, so that its start weighs as little as usual.
TIMES = 10


def make_photographs(folder, count):
    """Write JPEGs with the spectrum of photographs: the larger a shape, the stronger."""
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


def convert(folder, shards):
    """Convert as they are, without making them smaller."""
    import convert_dataset

    arguments = ["--dataset_dir", str(folder), "--tfrecord_filename", "train", "--max_edge", "0"]
    convert_dataset.main([*arguments, "--tfrecord_dir", str(shards), "--num_shards", "4"])
    return read_manifest(shards, "train")


def decoding(source):
    """Read the shards and decode whole images, and nothing else."""

    def decode(key):
        example = {"image/encoded": tf.io.FixedLenFeature((), tf.string)}
        encoded = tf.io.parse_single_example(key, example)["image/encoded"]
        return tf.io.decode_jpeg(encoded, channels=3)

    # As many at once as TensorFlow finds best.
    tuned = tf.data.Options()
    tuned.autotune.enabled = True
    images = source.keys(None, DEFAULT_OPTIONS).map(decode, tf.data.AUTOTUNE).prefetch(BATCH)
    return lambda epoch: images.with_options(tuned)


def training(source, words):
    """Read, crop, augment and batch as in training, in the deterministic order."""
    return TrainingPipeline(
        source,
        ImageFormat(SIZE, 3),
        BATCH,
        shuffle_examples=100,
        seed=0,
        augmentations=choose_augmentations(words),
    )


def keras_peer(folder, edge, layers):
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


def keras_peers(folder):
    """Return the nearest that Keras has to a distorted crop with a flip, and a cheaper one.

    The nearest moves, and zooms height and width apart; the cheaper one has no scale or aspect.
    """
    flip = keras.layers.RandomFlip("horizontal", seed=0)
    move = keras.layers.RandomTranslation(0.15, 0.15, seed=0)
    zoom = keras.layers.RandomZoom((-0.3, 0.0), (-0.3, 0.0), seed=0)
    crop = keras.layers.RandomCrop(SIZE, SIZE, seed=0)
    return {
        "keras": keras_peer(folder, SIZE, [move, zoom, flip]),
        "keras_fixed_crop": keras_peer(folder, 256, [crop, flip]),
    }


def measure(batches, count):
    """Give (images, or batches of them, a second; processor seconds an image) over one epoch."""
    start, worked = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start), (time.process_time() - worked) / count


def compare(contenders, count, rounds):
    """Give {name: array (rounds, 2) of rates and processor seconds}; all take turns."""
    measured = {name: [] for name in contenders}
    # Round 0 warms up.
    for each in range(rounds + 1):
        for name, batches in contenders.items():
            measured[name].append(measure(batches(each), count))
    return {name: np.array(values[1:]) for name, values in measured.items()}


def resident_megabytes():
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    raise OSError("/proc/self/status tells no VmRSS")


def measure_memory(inputs):
    """Return the resident megabytes after each of some epochs."""
    after = []
    for epoch in range(EPOCHS):
        for _ in inputs.batches(epoch):
            pass
        gc.collect()
        after.append(round(resident_megabytes()))
    return after


def main():
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="folder of class folders of JPEGs")
    parser.add_argument("--images", type=int, default=400, help="how many to make")
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
            **keras_peers(folder),
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
