"""Shards become batches: what is read, in which order, and how an image reaches the network.

The order of an epoch is a function of (seed, epoch) alone:

1. the shards are permuted,
2. read a few at a time, their records interleaved,
3. shuffled while still encoded,
4. and only then skipped, decoded, augmented (each example with a seed of its own) and batched.

So any batch of any epoch can be made again: a run stopped anywhere goes on with the very batches
that it would have seen.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from library.dataset.records import parse_record
from project.augmentations import augment


# Shards whose records are interleaved. Part of the order, and so no setting: what may be tuned is
# how many of them are read at once.
INTERLEAVED_SHARDS = 16


@dataclass(frozen=True)
class ImageFormat:
    """What the network takes: squares of image_size pixels and 1 or 3 channels."""

    image_size: int
    channels: int

    @property
    def shape(self):
        """(height, width, channels)."""
        return (self.image_size, self.image_size, self.channels)


@dataclass(frozen=True)
class Reading:
    """How much is read, decoded and kept ready at once. Changes speed; never what is read."""

    num_parallel_reads: int = 4
    num_parallel_calls: int | None = None
    prefetch_batches: int = 2


@dataclass(frozen=True)
class TrainingInputs:
    """The training split, as one shuffled and augmented data set per epoch."""

    paths: tuple
    examples: int
    image_format: ImageFormat
    batch_size: int
    shuffle_examples: int
    seed: int
    crop: object = None
    augmentations: tuple = ()
    reading: Reading = Reading()

    @property
    def batches_per_epoch(self):
        """The last one may be smaller: each epoch holds every example exactly once."""
        return -(-self.examples // self.batch_size)

    def batches(self, epoch, start_batch=0):
        """Give the batches of one epoch from `start_batch` on, as a tf.data.Dataset.

        Elements are (images, labels): uint8 (batch, height, width, channels) and int64 (batch,).
        """
        order = np.random.default_rng([self.seed, epoch])
        shards = order.permutation(np.array(self.paths))
        shuffle_seed, *example_seed = order.integers(2**31, size=3)
        records = _read(shards, self.reading)
        # Shuffle before decode: the buffer holds small JPEG bytes, not large pixels.
        records = records.shuffle(self.shuffle_examples, seed=int(shuffle_seed))
        # Skip before decode: resuming late in an epoch costs reading, nothing else.
        records = records.enumerate().skip(start_batch * self.batch_size)

        def prepare(position, record):
            seed = tf.random.experimental.stateless_fold_in(
                tf.constant(example_seed, tf.int64), position
            )
            crop = self.crop and (lambda shape: self.crop(shape, seed))
            image, label = _decode(record, self.image_format, crop)
            # The crop has folded in nothing: 2**20 is no position of an augmentation.
            later = tf.random.experimental.stateless_fold_in(seed, 2**20)
            return augment(image, self.augmentations, later), label

        return _batch(records, prepare, self.batch_size, self.reading)


@dataclass(frozen=True)
class EvaluationInputs:
    """A split as it is: every example once, in order, nothing augmented, the last batch partial."""

    paths: tuple
    examples: int
    image_format: ImageFormat
    batch_size: int
    reading: Reading = Reading()

    def batches(self):
        """Give (images, labels) batches as in TrainingInputs."""
        records = _read(np.array(self.paths), self.reading)
        return _batch(
            records,
            lambda record: _decode(record, self.image_format, crop=None),
            self.batch_size,
            self.reading,
        )


def _read(shards, reading):
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        tf.data.TFRecordDataset,
        cycle_length=INTERLEAVED_SHARDS,
        num_parallel_calls=min(reading.num_parallel_reads, INTERLEAVED_SHARDS),
        # Interleaving in a fixed order, whichever shard answers first.
        deterministic=True,
    )


def _batch(records, prepare, batch_size, reading):
    return (
        records.map(prepare, reading.num_parallel_calls or tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(reading.prefetch_batches)
    )


def _decode(record, image_format, crop):
    """Decode one record (only the window, if `crop` chooses one) at the network's size."""
    fields = parse_record(record)
    encoded, channels = fields["encoded"], image_format.channels
    if crop:
        window = crop(tf.io.extract_jpeg_shape(encoded))
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=channels)
    else:
        image = tf.io.decode_jpeg(encoded, channels=channels)
    return _resize(image, image_format), fields["label"]


def _resize(image, image_format):
    size = [image_format.image_size, image_format.image_size]

    def resized():
        # Bicubic overshoots at edges, past what a pixel may be.
        pixels = tf.image.resize(image, size, "bicubic", antialias=True)
        return tf.saturate_cast(tf.round(pixels), tf.uint8)

    # Images that already fit keep their very pixels, and cost nothing.
    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.ensure_shape(tf.cond(fits, lambda: image, resized), image_format.shape)
