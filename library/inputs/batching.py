"""Keys in the order of an epoch become batches: skipped, divided, prepared, prefetched."""

import tensorflow as tf

from library.cores import available_cores
from library.inputs.untuned import untuned

# More than one, because calls wait for each other to be in order: 1 is 10 % slower, 16 no faster.
_CALLS_PER_CORE = 4


def own_examples(examples, part):
    """Give the examples that a worker reads: all, or those of its own shards."""
    return examples.only(part) if part.has_own_shards else examples


def count_batches(examples, example_count, batch_size, part):
    """Give the number of batches of an epoch, the same for every worker."""
    if part.has_own_shards:
        # The worker with the most examples; the others get empty batches at the end.
        each = [examples.only(other).count for other in part.siblings()]
        return -(-max(each) // part.size(batch_size))
    return -(-example_count // batch_size)


def make_batches(keys, prepare, batch_size, start, number, part, reading):
    """Give batches `start` to `number` of what `prepare` makes of (position, key).

    Skips before preparing: starting late in an epoch costs reading, nothing else.
    """
    size = part.size(batch_size)
    skipped = start * (size if part.by_file else batch_size)
    positioned = part.select(keys.enumerate().skip(skipped), batch_size)
    if reading.prefetch_examples:
        positioned = positioned.prefetch(reading.prefetch_examples)
    calls = reading.num_parallel_calls or _CALLS_PER_CORE * available_cores()
    prepare = tf.autograph.experimental.do_not_convert(prepare)
    prepared = positioned.map(prepare, calls, deterministic=reading.deterministic)
    return part.fill(prepared.batch(size), number - start)


def keep_ready(batches, reading):
    """Give the batches, some of them prepared ahead, and some already on the device."""
    options = tf.data.Options()
    options.deterministic = reading.deterministic
    # Fused with batching, images would be prepared in order all the same.
    options.experimental_optimization.map_and_batch_fusion = reading.deterministic
    # Begin when an iterator is made, not when it is first asked: the step is traced meanwhile.
    options.experimental_warm_start = True
    batches = untuned(batches).with_options(options).prefetch(reading.prefetch_batches)
    if reading.device and reading.prefetch_to_device:
        to_device = tf.data.experimental.prefetch_to_device
        batches = batches.apply(to_device(reading.device, reading.prefetch_to_device))
    return batches
