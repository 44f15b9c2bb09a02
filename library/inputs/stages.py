"""How many images a second each stage of the input pipeline gives, and which one holds it back."""

import time

_SECONDS = 3.0
_ADVICE = {
    "read": "more num_parallel_reads, a faster disk, converted shards or a cache would help",
    "decode": "a smaller --max_edge when converting, more cores, or a cache would help",
    "augment": "fewer or cheaper augmentations, or more cores would help",
}


def measure_stages(training, seconds=None):
    """Give {stage: images per second} of TrainingInputs, each stage with all before it.

    read: encoded examples, in the order of the epoch. decode: also images at the network's size.
    augment: the whole, as training gets it.
    """
    seconds = seconds or _SECONDS
    plain = training.without_augmentations()
    return {
        "read": _rate(lambda epoch: training.keys(epoch).batch(training.batch_size), seconds),
        "decode": _rate(plain.batches, seconds),
        "augment": _rate(training.batches, seconds),
    }


def shares_of_time(rates):
    """Give {stage: its share of the time that an image takes}, from what `measure_stages` gives."""
    times = [1 / rate for rate in rates.values()]
    # Two measurements of the same can come out in the wrong order.
    own = [max(0.0, time - before) for before, time in zip([0.0, *times], times, strict=False)]
    return {stage: each / sum(own) for stage, each in zip(rates, own, strict=True)}


def tell_stages(rates):
    """Yield lines: a table of the stages, and which one holds the rest back."""
    shares = shares_of_time(rates)
    for stage, rate in rates.items():
        yield f"{stage:8} {rate:10,.0f} images/s   {shares[stage]:4.0%} of the time"
    slowest = max(shares, key=shares.get)
    yield f"{slowest} holds the rest back: {_ADVICE[slowest]}"


def _rate(batches, seconds):
    """Give images per second, after a warm-up, over as many epochs as it takes."""
    count, start, epoch = 0, None, 0
    begin = time.perf_counter()
    while True:
        for element in batches(epoch):
            first = element[0] if isinstance(element, tuple) else element
            now = time.perf_counter()
            if start is not None:
                count += int(first.shape[0])
                if now - start > seconds:
                    return count / (now - start)
            # Buffers fill and threads are tuned at first.
            elif now - begin > seconds / 3:
                start = now
        epoch += 1
