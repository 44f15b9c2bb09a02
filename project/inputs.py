"""Examples become batches: what is read, in which order, and how an image reaches the network.

The order of an epoch is a function of (seed, epoch) alone:

1. the shards are permuted,
2. read in turn, so that their records are interleaved,
3. repeated, if smaller classes are oversampled,
4. shuffled while still encoded,
5. and only then skipped, divided among workers, decoded, augmented (each example with a seed made
   from the epoch's seed and its position) and batched.

So any batch of any epoch can be made again, by any number of threads or workers: a run that was
stopped anywhere resumes with exactly the batches that it would have seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from library.augmentation.pipeline import Augmentations
from library.inputs.balance import oversample, oversampled_count
from library.inputs.batching import count_batches, make_batches, prefetch, worker_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import DEFAULT_OPTIONS, ExampleSource, PipelineOptions, SplitPart
from library.inputs.worker_slice import WHOLE_BATCH, WorkerSlice
from project.augmentations import NO_AUGMENTATIONS


def generate_images(split: str) -> Iterator[tuple[np.ndarray | bytes, str]]:
    """Yield (image, class name) for `data_format: generator`. An example: replace it by your own.

    Must yield the same every time it is called.

    Args:
        split: train, validation or test.

    Yields:
        uint8 pixels (height, width, 1 or 3) or the bytes of an image file, and a class name.
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
    """The training split as one shuffled and augmented dataset per epoch.

    Attributes:
        source: Where the examples come from.
        image_format: Shape of the decoded images.
        batch_size: Number of examples in a full batch, over all workers.
        shuffle_examples: Size of the shuffle buffer.
        seed: Determines, together with the epoch, the order and the augmentations.
        augmentations: Random changes to the images.
        is_oversampled: Whether smaller classes are repeated until all are equally large.
        worker_slice: The part of each batch that this worker prepares.
        options: How much is read, decoded and prefetched in parallel.
        is_augmented_later: Whether all but crops is left to the training step, on its device.
        stages: Pairs of an epoch and the format of images from then on, sorted; before the first
            one it is `image_format`.
    """

    source: ExampleSource
    image_format: ImageFormat
    batch_size: int
    shuffle_examples: int
    seed: int
    augmentations: Augmentations = NO_AUGMENTATIONS
    is_oversampled: bool = False
    worker_slice: WorkerSlice = WHOLE_BATCH
    options: PipelineOptions = DEFAULT_OPTIONS
    is_augmented_later: bool = False
    stages: tuple[tuple[int, ImageFormat], ...] = ()

    @property
    def examples(self) -> int:
        """Number of examples in an epoch: each one once, or more if it is oversampled."""
        if self.is_oversampled:
            return oversampled_count(self.source.class_counts)
        return self.source.count

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch; the last one may be smaller, none is dropped."""
        return count_batches(self)

    @property
    def is_augmented(self) -> bool:
        """Whether images are changed after they are decoded."""
        return self.augmentations.has_more_than_crop

    @property
    def order(self) -> list:
        """What the order of an epoch depends on besides the file names, as JSON stores it."""
        own = self.worker_slice.count if self.worker_slice.has_own_shards else None
        numbers = (self.seed, self.examples, self.batch_size, self.shuffle_examples)
        return [*numbers, self.is_oversampled, self.source.interleaved, own]

    def keys(self, epoch: int) -> tf.data.Dataset:
        """Return the keys of the source's examples in the order of an epoch."""
        return self._shuffled(epoch)[0]

    def batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return the batches of one epoch from `start_batch` on, or this worker's part of them.

        Elements are (images, labels). Images are uint8 (batch, height, width, channels). Labels
        are int64 (batch,) or, if images are mixed or multi-label, float32 (batch, classes).
        """
        batches = self.step_batches(epoch, start_batch)
        if self.is_augmented_later:
            apply = self.augmentations.apply_drawn
            batches = batches.map(lambda images, labels, drawn: (apply(images, drawn), labels))
        return batches

    def step_batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return the batches as the training step takes them.

        As `batches`, unless they are augmented later: then elements have a third part, the result
        of `Augmentations.draw` for each image.
        """
        if begun := [inputs for start, inputs in self._staged if start <= epoch]:
            return begun[-1].step_batches(epoch, start_batch)
        keys, epoch_seed = self._shuffled(epoch, start_batch)
        prepare = self._prepare
        batches = make_batches(
            self, keys, lambda position, key: prepare(epoch_seed, position, key), start_batch
        )
        return prefetch(
            batches.map(self._mix) if self.augmentations.has_mixing else batches, self.options
        )

    def preview_batches(self, epoch: int, start_batch: int = 0) -> tf.data.Dataset:
        """Return batches to look at: those of `batches`, or others that are at hand."""
        source = self.source.at_hand()
        if source is self.source:
            return self.batches(epoch, start_batch)
        return self._with(source).batches(epoch)

    @cached_property
    def _staged(self) -> list[tuple[int, "TrainingPipeline"]]:
        """The same inputs at the size of each stage, which keep what was traced for it."""
        return [(start, replace(self, image_format=each, stages=())) for start, each in self.stages]

    @cached_property
    def _prepare(self) -> Callable[..., tuple[tf.Tensor, ...]]:
        source, augmentations = self._source, self.augmentations

        # Traced once, not again in each epoch: some augmentations are large graphs.
        @tf.function(reduce_retracing=True, autograph=False)
        def prepare(
            epoch_seed: tf.Tensor, position: tf.Tensor, key: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            seeds = augmentations.seeds(tf.stack([epoch_seed, position]))
            image, label = source.load(key, self.image_format, augmentations.crop(seeds))
            if self.is_augmented_later:
                return image, label, augmentations.draw(image, seeds)
            image = augmentations.apply(image, seeds)
            return (image, label, seeds) if augmentations.has_mixing else (image, label)

        return prepare

    def _mix(self, images, labels, seeds):
        # Multi-label targets are one number per class already.
        is_multi_label = labels.dtype.is_floating
        targets = labels if is_multi_label else tf.one_hot(labels, len(self.source.class_counts))
        return self.augmentations.mix(images, targets, seeds)

    def without_augmentations(self) -> "TrainingPipeline":
        """Return the same inputs, with images cropped but not changed."""
        return replace(self, augmentations=self.augmentations.crop_only())

    def for_part(self, part: SplitPart) -> "TrainingPipeline":
        """Return inputs of a part of the examples that don't depend on the other parts."""
        # Not the same augmentations in each part.
        seed = self.seed + int(part.fingerprint[:8], 16)
        return self._with(part.source, seed=seed, shuffle_examples=1)

    def _with(self, source: ExampleSource, **changes: Any) -> "TrainingPipeline":
        inputs = replace(self, source=source, **changes)
        if type(self.source) is type(source):
            # Records are loaded alike wherever they lie, and tracing takes long.
            vars(inputs)["_prepare"] = self._prepare
        return inputs

    @property
    def _source(self) -> ExampleSource:
        return worker_examples(self.source, self.worker_slice)

    def _random(self, epoch: int) -> np.random.Generator:
        # Workers that read their own shards count positions from 0 each: their seeds must differ.
        own = [self.worker_slice.index] if self.worker_slice.has_own_shards else []
        return np.random.default_rng([self.seed, epoch, *own])

    def _shuffled(self, epoch: int, start_batch: int = 0) -> tuple[tf.data.Dataset, tf.Tensor]:
        """Return the keys in the epoch's order, and the seed of the epoch's augmentations.

        Keys before `start_batch` may be empty, unless they are oversampled by their labels.
        """
        source = whole = self._source
        if start_batch and not self.is_oversampled:
            skipped = self.worker_slice.keys_before(start_batch, self.batch_size)
            source = whole.for_rest(lambda: self._shuffle(epoch, whole.indices)[0].skip(skipped))
        source.announce(epoch + 1, self._random(epoch + 1))
        return self._shuffle(epoch, source.keys)

    def _shuffle(
        self, epoch: int, read: Callable[[np.random.Generator], tf.data.Dataset]
    ) -> tuple[tf.data.Dataset, tf.Tensor]:
        """Shuffle what the source's `keys` or `indices` return. See `_shuffled`."""
        random = self._random(epoch)
        keys = read(random)
        shuffle_seed, epoch_seed = map(int, random.integers(2**31, size=2))
        if self.is_oversampled:
            keys = oversample(keys, self.source.labels, self.source.class_counts)
        # Shuffle before decoding: the buffer holds small encoded images, not large pixels.
        if self.is_oversampled or not self.source.is_shuffled:
            keys = keys.shuffle(self.shuffle_examples, shuffle_seed, reshuffle_each_iteration=False)
        return keys, tf.constant(epoch_seed, tf.int64)


@dataclass(frozen=True)
class EvaluationPipeline:
    """A split as it is: every example once, in order, not augmented. See TrainingPipeline."""

    source: ExampleSource
    image_format: ImageFormat
    batch_size: int
    worker_slice: WorkerSlice = WHOLE_BATCH
    options: PipelineOptions = DEFAULT_OPTIONS

    @property
    def examples(self) -> int:
        """Number of examples."""
        return self.source.count

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches; the last one may be smaller."""
        return count_batches(self)

    def batches(self) -> tf.data.Dataset:
        """Return the batches; elements are (images, labels) as in TrainingPipeline."""
        return self._loaded_batches

    @cached_property
    def _loaded_batches(self) -> tf.data.Dataset:
        # Made once: for a small split, making it takes longer than an evaluation.
        return self._batches(lambda source, position, key: source.load(key, self.image_format))

    def named_batches(self) -> tf.data.Dataset:
        """Return the batches with file names; elements are (images, labels, names).

        Names are strings (batch,), which a GPU can't hold: these batches stay on the host.
        """

        def prepare(
            source: ExampleSource, position: tf.Tensor, key: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            return *source.load(key, self.image_format), source.name(position, key)

        on_host = replace(self, options=replace(self.options, device=None))
        return on_host._batches(prepare)

    def _batches(self, prepare: Callable[..., tuple[tf.Tensor, ...]]) -> tf.data.Dataset:
        source = worker_examples(self.source, self.worker_slice)
        # In order, even if training is not deterministic.
        options = replace(self.options, deterministic=True)
        batches = make_batches(
            replace(self, options=options),
            source.keys(),
            lambda position, key: prepare(source, position, key),
        )
        return prefetch(batches, options)
