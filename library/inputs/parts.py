"""Which examples of a batch one of several workers prepares, so that all make what one would."""

from dataclasses import dataclass, replace

import tensorflow as tf

from library.errors import SettingsError


@dataclass(frozen=True)
class Part:
    """The index-th of `count` equal parts of each batch.

    By file, a worker reads only its own shards: that spares reading, and makes another order.
    """

    index: int = 0
    count: int = 1
    by_file: bool = False

    @property
    def has_own_shards(self):
        """Whether it reads only some of the shards."""
        return self.by_file and self.count > 1

    def size(self, batch_size):
        """Give how many examples of a whole batch are in this part. Raises SettingsError."""
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
        """Give the parts of all workers."""
        return [replace(self, index=each) for each in range(self.count)]

    def select(self, positioned, batch_size):
        """Keep this part's elements of a data set of (position in the epoch, …)."""
        if self.count == 1 or self.by_file:
            return positioned
        size = self.size(batch_size)
        return positioned.filter(lambda position, *_: position % batch_size // size == self.index)

    def fill(self, batches, number):
        """Give exactly `number` batches: where this part ran out of examples, empty ones.

        Every worker must take every step; the last batch of an epoch may be too small for all.
        """
        if self.count == 1:
            return batches
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), batches.element_spec
        )
        return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).take(number)


WHOLE = Part()
