"""Keys in the order of an epoch become batches: skipped, divided, prepared, prefetched."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from library.dataset.worker_pool import available_cores
from library.inputs.examples import ExampleSource, PipelineOptions, without_autotune
from library.inputs.interfaces import Inputs
from library.inputs.worker_slice import WorkerSlice

# More than one, because a call waits for the ones before it: 1 is 10 % slower, 16 is no faster.
_CALLS_PER_CORE = 4


def worker_examples(source: ExampleSource, worker_slice: WorkerSlice) -> ExampleSource:
    """Return the examples that a worker reads: all, or those in its own shards."""
    return source.for_worker(worker_slice) if worker_slice.has_own_shards else source


def count_batches(inputs: Inputs) -> int:
    """Return the number of batches in an epoch, the same for every worker."""
    worker_slice = inputs.worker_slice
    if worker_slice.has_own_shards:
        # The worker with the most examples counts; the others get empty batches at the end.
        counts = [inputs.source.for_worker(each).count for each in worker_slice.siblings()]
        return -(-max(counts) // worker_slice.size(inputs.batch_size))
    return -(-inputs.examples // inputs.batch_size)


def make_batches(
    inputs: Inputs, keys: tf.data.Dataset, prepare: Callable[..., Any], start_batch: int = 0
) -> tf.data.Dataset:
    """Prepare and batch the examples of an epoch.

    Examples are skipped before they are prepared: starting late in an epoch costs only reading.

    Args:
        inputs: Batch size, slice of the worker, and options.
        keys: The keys that the worker reads, in the order of the epoch.
        prepare: Makes an element of (position in the epoch, key).
        start_batch: Index of the first batch.
    """
    worker_slice, options, batch_size = inputs.worker_slice, inputs.options, inputs.batch_size
    size = worker_slice.size(batch_size)
    skipped = worker_slice.keys_before(start_batch, batch_size)
    positioned = worker_slice.select(keys.enumerate().skip(skipped), batch_size)
    if options.prefetch_examples:
        positioned = positioned.prefetch(options.prefetch_examples)
    calls = options.num_parallel_calls or _CALLS_PER_CORE * available_cores()
    prepare = tf.autograph.experimental.do_not_convert(prepare)
    prepared = positioned.map(prepare, calls, deterministic=options.deterministic)
    return worker_slice.fill(prepared.batch(size), inputs.batches_per_epoch - start_batch)


def prefetch(batches: tf.data.Dataset, options: PipelineOptions) -> tf.data.Dataset:
    """Prefetch batches on the host and, if the options name a device, onto that."""
    dataset_options = tf.data.Options()
    dataset_options.deterministic = options.deterministic
    # Map fused with batch would prepare images in order all the same.
    dataset_options.experimental_optimization.map_and_batch_fusion = options.deterministic
    # Start when an iterator is made, not at its first element: the step is traced meanwhile.
    dataset_options.experimental_warm_start = True
    batches = without_autotune(batches).with_options(dataset_options)
    batches = batches.prefetch(options.prefetch_batches)
    if options.device and options.prefetch_to_device:
        to_device = tf.data.experimental.prefetch_to_device
        batches = batches.apply(to_device(options.device, options.prefetch_to_device))
    return batches
