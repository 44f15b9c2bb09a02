"""Keys in the order of an epoch become batches: skipped, divided, prepared, prefetched."""

from dataclasses import dataclass, replace

import tensorflow as tf

from library.dataset.worker_pool import available_cores
from library.errors import SettingsError

# More than one, because calls wait for each other to be in order: 1 is 10 % slower, 16 no faster.
_CALLS_PER_CORE = 4


def make_batches(keys, prepare, batch_size, start, number, part, options):
    """Return batches `start` to `number` of what `prepare` makes of (position, key).

    Skips before preparing: starting late in an epoch costs options, nothing else.
    """
    size = part.size(batch_size)
    skipped = start * (size if part.by_file else batch_size)
    positioned = part.select(keys.enumerate().skip(skipped), batch_size)
    if options.prefetch_examples:
        positioned = positioned.prefetch(options.prefetch_examples)
    calls = options.num_parallel_calls or _CALLS_PER_CORE * available_cores()
    prepare = tf.autograph.experimental.do_not_convert(prepare)
    prepared = positioned.map(prepare, calls, deterministic=options.deterministic)
    return part.fill(prepared.batch(size), number - start)


def prefetch(batches, options):
    """Return the batches, some of them prepared ahead, and some already on the device."""
    dataset_options = tf.data.Options()
    dataset_options.deterministic = options.deterministic
    # Fused with batching, images would be prepared in order all the same.
    dataset_options.experimental_optimization.map_and_batch_fusion = options.deterministic
    # Begin when an iterator is made, not when it is first asked: the step is traced meanwhile.
    dataset_options.experimental_warm_start = True
    batches = (
        without_autotune(batches).with_options(dataset_options).prefetch(options.prefetch_batches)
    )
    if options.device and options.prefetch_to_device:
        to_device = tf.data.experimental.prefetch_to_device
        batches = batches.apply(to_device(options.device, options.prefetch_to_device))
    return batches


def without_autotune(dataset):
    """Return the data set, and all that is made of it, without the thread that tunes it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@dataclass(frozen=True)
class WorkerSlice:
    """The index-th of `count` equal parts of each batch.

    By file, a worker reads only its own shards: that spares options, and makes another order.
    """

    index: int = 0
    count: int = 1
    by_file: bool = False

    @property
    def has_own_shards(self):
        """Whether it reads only some of the shards."""
        return self.by_file and self.count > 1

    def size(self, batch_size):
        """Return how many examples of a whole batch are in this part. Raises SettingsError."""
        if batch_size % self.count:
            raise SettingsError(
                f"batch_size {batch_size} can't be divided among {self.count} workers: "
                f"{batch_size // self.count * self.count or self.count} could"
            )
        return batch_size // self.count

    def check_pairs(self, batch_size):
        """Raise SettingsError if images mixed in pairs would get others than one worker pairs."""
        size = self.size(batch_size)
        if size % 2 and self.count > 1 and not self.by_file:
            raise SettingsError(
                f"mixup and cutmix mix pairs of images: train_batch_size {batch_size} gives each "
                f"of {self.count} workers {size}, an odd number; {batch_size + self.count} would "
                "be even"
            )

    def siblings(self):
        """Return the parts of all workers."""
        return [replace(self, index=each) for each in range(self.count)]

    def select(self, positioned, batch_size):
        """Keep this part's elements of a data set of (position in the epoch, …)."""
        if self.count == 1 or self.by_file:
            return positioned
        size = self.size(batch_size)
        return positioned.filter(lambda position, *_: position % batch_size // size == self.index)

    def fill(self, batches, number):
        """Return exactly `number` batches: where this part ran out of examples, empty ones.

        Every worker must take every step; the last batch of an epoch may be too small for all.
        """
        if self.count == 1:
            return batches
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), batches.element_spec
        )
        return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).take(number)


WHOLE_BATCH = WorkerSlice()
