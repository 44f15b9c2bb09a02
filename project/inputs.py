"""Examples become batches: what is read, in which order, and how an image reaches the network.

The order of an epoch is a function of (seed, epoch) alone:

1. the shards are permuted,
2. read in turns, their records interleaved,
3. repeated, where smaller classes are to count as much as larger ones,
4. shuffled while still encoded,
5. and only then skipped, divided among workers, decoded, augmented (each example with a seed made
   of the epoch's and its position) and batched.

So any batch of any epoch can be made again, by any number of threads or workers: a run stopped
anywhere goes on with the very batches that it would have seen.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import tensorflow as tf

from library.augmentation.pipeline import Augmentations
from library.inputs.balance import oversample, oversampled_count
from library.inputs.batching import (
    WHOLE_BATCH,
    WorkerSlice,
    make_batches,
    prefetch,
)
from library.inputs.decoding import ImageFormat
from library.inputs.examples import DEFAULT_OPTIONS, PipelineOptions, count_batches, worker_examples
from project.augmentations import NO_AUGMENTATIONS


def generate_images(split):
    """Yield (image, class name) for `data_format: generator`. An example: write your own here.

    An image is uint8 pixels (height, width, 1 or 3), or the bytes of a file. Takes the name of the
    split: train, validation or test. Must yield the same each time it is called.
    """
    random = np.random.default_rng({"train": 0, "validation": 1, "test": 2}[split])
    stripes = np.indices((32, 32)) // 4 % 2 * 120
    for number in range(240 if split == "train" else 60):
        noise = random.integers(0, 136, (32, 32, 3))
        is_upright = number % 2
        yield (
            (stripes[is_upright][..., np.newaxis] + noise).astype(np.uint8),
            "upright" if is_upright else "level",
        )


@dataclass(frozen=True)
class TrainingPipeline:
    """The training split, as one shuffled and augmented data set per epoch.

    `source` is one of those in library/inputs/examples.py. `batch_size` counts the examples of all
    workers; `worker_slice` is which of them this one prepares.
    """

    source: object
    image_format: ImageFormat
    batch_size: int
    shuffle_examples: int
    seed: int
    augmentations: Augmentations = NO_AUGMENTATIONS
    is_oversampled: bool = False
    worker_slice: WorkerSlice = WHOLE_BATCH
    options: PipelineOptions = DEFAULT_OPTIONS

    @property
    def examples(self):
        """How many examples an epoch holds: each one once, unless smaller classes are repeated."""
        if self.is_oversampled:
            return oversampled_count(self.source.class_counts)
        return self.source.count

    @property
    def batches_per_epoch(self):
        """The last one may be smaller: each epoch holds every example exactly once."""
        return count_batches(self.source, self.examples, self.batch_size, self.worker_slice)

    @property
    def order(self):
        """What the order of an epoch's images depends on, besides their names, as JSON holds it."""
        own = self.worker_slice.count if self.worker_slice.has_own_shards else None
        numbers = (self.seed, self.examples, self.batch_size, self.shuffle_examples)
        return [*numbers, self.is_oversampled, self.source.interleaved, own]

    def keys(self, epoch):
        """Return the encoded examples of an epoch, or what stands for them, in its order."""
        return self._ordered(epoch)[0]

    def batches(self, epoch, start_batch=0):
        """Return the batches of one epoch from `start_batch` on, as a tf.data.Dataset.

        Elements are (images, labels): uint8 (batch, height, width, channels), and int64 (batch,)
        or, where images are mixed or have several classes, float32 (batch, classes). Each worker
        gets its part.
        """
        keys, example_seed = self._ordered(epoch)
        prepare, mixes = self._prepare, self.augmentations.has_mixing
        number = self.batches_per_epoch
        batches = make_batches(
            keys,
            lambda position, key: prepare(example_seed, position, key),
            self.batch_size,
            start_batch,
            number,
            self.worker_slice,
            self.options,
        )
        return prefetch(batches.map(self._mix) if mixes else batches, self.options)

    @cached_property
    def _prepare(self):
        source, choice = self._source, self.augmentations

        # Traced once, not anew in each epoch: some augmentations are large graphs.
        @tf.function(reduce_retracing=True, autograph=False)
        def prepare(example_seed, position, key):
            seeds = choice.seeds(tf.stack([example_seed, position]))
            image, label = source.load(key, self.image_format, choice.crop(seeds))
            image = choice.apply(image, seeds)
            return (image, label, seeds) if choice.has_mixing else (image, label)

        return prepare

    def _mix(self, images, labels, seeds):
        # Of images of several classes, they are such already.
        multi_label = labels.dtype.is_floating
        targets = labels if multi_label else tf.one_hot(labels, len(self.source.class_counts))
        return self.augmentations.mix(images, targets, seeds)

    def without_augmentations(self):
        """Return the same inputs, their images cropped but not changed."""
        return replace(self, augmentations=self.augmentations.crop_only())

    @property
    def _source(self):
        return worker_examples(self.source, self.worker_slice)

    def _ordered(self, epoch):
        """Return the keys in the epoch's order, and the seed of its examples."""
        # Who reads only some shards counts only their examples: their seeds must be others.
        own = [self.worker_slice.index] if self.worker_slice.has_own_shards else []
        source, random = self._source, np.random.default_rng([self.seed, epoch, *own])
        keys = source.keys(random, self.options)
        shuffle_seed, example_seed = map(int, random.integers(2**31, size=2))
        if self.is_oversampled:
            keys = oversample(keys, source.labels, source.class_counts)
        # Shuffle before decode: the buffer holds small encoded images, not large pixels.
        if self.is_oversampled or not source.is_shuffled:
            keys = keys.shuffle(self.shuffle_examples, shuffle_seed, reshuffle_each_iteration=False)
        return keys, tf.constant(example_seed, tf.int64)


@dataclass(frozen=True)
class EvaluationPipeline:
    """A split as it is: every example once, in order, nothing augmented, the last batch partial."""

    source: object
    image_format: ImageFormat
    batch_size: int
    worker_slice: WorkerSlice = WHOLE_BATCH
    options: PipelineOptions = DEFAULT_OPTIONS

    @property
    def examples(self):
        """How many examples there are."""
        return self.source.count

    @property
    def batches_per_epoch(self):
        """The last one may be smaller."""
        return count_batches(self.source, self.examples, self.batch_size, self.worker_slice)

    def batches(self):
        """Give (images, labels) batches as in TrainingPipeline."""
        return self._batches(lambda source, key: source.load(key, self.image_format))

    def named_batches(self):
        """Give (images, labels, names) batches: with the images' file names, string (batch,)."""
        # No GPU holds strings.
        return replace(self, options=replace(self.options, device=None))._batches(
            lambda source, key: (*source.load(key, self.image_format), source.filename(key))
        )

    def _batches(self, prepare):
        source, number = worker_examples(self.source, self.worker_slice), self.batches_per_epoch
        # In order, also where training is not.
        options = replace(self.options, deterministic=True)
        batches = make_batches(
            source.keys(None, options),
            lambda position, key: prepare(source, key),
            self.batch_size,
            0,
            number,
            self.worker_slice,
            options,
        )
        return prefetch(batches, options)
