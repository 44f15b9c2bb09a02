"""The part of each batch that one of several workers prepares."""

from dataclasses import dataclass, replace

import tensorflow as tf

from library.errors import SettingsError


@dataclass(frozen=True)
class WorkerSlice:
    """The index-th of `count` equal parts of each batch.

    With `by_file`, a worker reads only its own shards, which saves reading and changes the order.
    """

    index: int = 0
    count: int = 1
    by_file: bool = False

    @property
    def has_own_shards(self) -> bool:
        """Whether the worker reads only some of the shards."""
        return self.by_file and self.count > 1

    def size(self, batch_size: int) -> int:
        """Return the number of examples of a full batch in this slice. Raises SettingsError."""
        if batch_size % self.count:
            raise SettingsError(
                f"batch_size {batch_size} can't be divided among {self.count} workers; "
                f"{batch_size // self.count * self.count or self.count} can"
            )
        return batch_size // self.count

    def keys_before(self, batch: int, batch_size: int) -> int:
        """Return the number of keys that this worker reads before a batch of an epoch."""
        return batch * (self.size(batch_size) if self.by_file else batch_size)

    def check_pairs(self, batch_size: int) -> None:
        """Raise SettingsError if this slice would separate images that are mixed in pairs."""
        size = self.size(batch_size)
        if size % 2 and self.count > 1 and not self.by_file:
            raise SettingsError(
                f"mixup and cutmix mix pairs of images, and train_batch_size {batch_size} gives "
                f"each of {self.count} workers an odd number of them ({size}); "
                f"{batch_size + self.count} would be even"
            )

    def siblings(self) -> list["WorkerSlice"]:
        """Return the slices of all workers."""
        return [replace(self, index=index) for index in range(self.count)]

    def select(self, positioned: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Filter a dataset of (position in the epoch, …) to the elements in this slice."""
        if self.count == 1 or self.by_file:
            return positioned
        size = self.size(batch_size)
        return positioned.filter(
            tf.autograph.experimental.do_not_convert(
                lambda position, *_: position % batch_size // size == self.index
            )
        )

    def fill(self, batches: tf.data.Dataset, number: int) -> tf.data.Dataset:
        """Return exactly `number` batches, empty ones once this worker has no more examples.

        Every worker must take part in every step, and the last batch of an epoch may be too small
        for all of them.
        """
        if self.count == 1:
            return batches
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), batches.element_spec
        )
        return batches.concatenate(tf.data.Dataset.from_tensors(empty).repeat()).take(number)


WHOLE_BATCH = WorkerSlice()
