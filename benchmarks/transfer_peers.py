"""Peers of benchmarks/accuracy.py in transfer learning: Keras's ways, with the same backbone.

`linear`: a linear head on the features of EfficientNet-Lite0, each image seen once.
`tutorial`: the transfer-learning guide on keras.io: images from folders, flips and rotations as
layers, the frozen base in every epoch of `fit`, and a head of dropout and logits.

Both take Adam at 1e-3 and the epoch with the lowest validation loss, and print test metrics as
JSON.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf

from project.networks.efficientnet_lite0 import make_base, read_weights

SIZE = 224


def main() -> None:
    """Train the peer that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=("linear", "tutorial"))
    parser.add_argument("--images", type=Path, required=True, help="train, validation and test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    splits = {name: read_split(options.images / name) for name in ("train", "validation", "test")}
    pixels = keras.Input((SIZE, SIZE, 3))
    base = make_base((SIZE, SIZE, 3))
    base.set_weights(read_weights())
    base.trainable = False
    scale = keras.layers.Rescaling(1 / 128, offset=-127 / 128)
    classes = len(list((options.images / "train").iterdir()))
    if options.peer == "tutorial":
        x = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(pixels))
        x = keras.layers.Dropout(0.2)(base(scale(x), training=False))
    else:
        features = keras.Model(pixels, base(scale(pixels), training=False))
        splits = {name: cache_features(features, split) for name, split in splits.items()}
        pixels = x = keras.Input((features.output_shape[1],))
    model = keras.Model(pixels, keras.layers.Dense(classes)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    best = keras.callbacks.EarlyStopping(patience=options.epochs, restore_best_weights=True)
    given = {"epochs": options.epochs, "callbacks": [best], "verbose": 0}
    model.fit(splits["train"], validation_data=splits["validation"], **given)
    # Restored only where training stops early.
    model.set_weights(best.best_weights)
    _, accuracy = model.evaluate(splits["test"], verbose=0)
    print(json.dumps({"accuracy": accuracy}))


def read_split(folder: Path) -> tf.data.Dataset:
    """Return (images, labels) batches of class folders, as the guide reads them."""
    return keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=32, seed=0, verbose=False
    )


def cache_features(features: keras.Model, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the same batches with features in the place of images."""
    pairs = [(features.predict_on_batch(images), labels) for images, labels in batches]
    arrays = tuple(np.concatenate(each) for each in zip(*pairs, strict=True))
    return tf.data.Dataset.from_tensor_slices(arrays).shuffle(10_000).batch(32)


if __name__ == "__main__":
    main()
