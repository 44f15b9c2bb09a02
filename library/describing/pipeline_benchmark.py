"""How many images a second each stage of the input pipeline gives, and which one holds it back."""

import time

from library.inputs.batching import make_batches, prefetch
from library.inputs.caching import CachedSource
from library.inputs.examples import FileSource, GeneratorSource, ShardSource

_SECONDS = 3.0
_ADVICE = {
    ShardSource: {
        "read": "more num_parallel_reads, a faster disk, or a cache",
        "decode": "a smaller --max_edge when converting, more cores, or a cache",
    },
    FileSource: {
        "read": "converting (convert_dataset.py), more cores, or a cache",
        "decode": "converting (convert_dataset.py, which shrinks images), more cores, or a cache",
    },
    GeneratorSource: {
        "read": "to write the images as files and convert them, or cache memory",
        "decode": "smaller images, more cores, or cache memory",
    },
    CachedSource: {"read": "cache memory where it is disk, or more cores", "decode": "more cores"},
}
_AUGMENT_ADVICE = "fewer or cheaper augmentations, or more cores"


def measure_stages(training, seconds=None):
    """Give {stage: images per second} of TrainingInputs, each stage with all before it.

    read: what is stored of each image, in the order of the epoch; of files that were not converted,
    also made into records. decode: also images at the network's size. augment: the whole, as
    training gets it; only where images are augmented.
    """
    seconds = seconds or _SECONDS
    plain = training.without_augmentations()
    rates = {"read": _rate(_read(training), seconds), "decode": _rate(plain.batches(0), seconds)}
    if training.augmentations.has_more_than_crop:
        rates["augment"] = _rate(training.batches(0), seconds)
    return rates


def _read(training):
    """Return batches of what is stored, by as many threads as prepare images in training."""
    batches = make_batches(
        training.keys(0),
        lambda position, key: training.source.stored_bytes(key),
        training.batch_size,
        0,
        training.batches_per_epoch,
        training.worker_slice,
        training.options,
    )
    return prefetch(batches, training.options)


def shares_of_time(rates):
    """Give {stage: its share of the time that an image takes}, from what `measure_stages` gives."""
    times = [1 / rate for rate in rates.values()]
    # Two measurements of the same can come out in the wrong order.
    own = [max(0.0, time - before) for before, time in zip([0.0, *times], times, strict=False)]
    return {stage: each / sum(own) for stage, each in zip(rates, own, strict=True)}


def format_stages(rates, source):
    """Yield lines: a table of the stages, and which one holds the rest back.

    What would help depends on the source of the TrainingInputs measured.
    """
    shares = shares_of_time(rates)
    for stage, rate in rates.items():
        yield f"{stage:8} {rate:10,.0f} images/s   {shares[stage]:4.0%} of the time"
    slowest = max(shares, key=shares.get)
    advice = {**_ADVICE[type(source)], "augment": _AUGMENT_ADVICE}
    yield f"{slowest} holds the rest back; what would help: {advice[slowest]}"


def _rate(batches, seconds):
    """Return images per second, after a warm-up, over as many epochs as it takes."""
    count, start = 0, None
    begin = time.perf_counter()
    # The same one again and again: to make another takes long beside an epoch of few images.
    for element in batches.repeat():
        first = element[0] if isinstance(element, tuple) else element
        now = time.perf_counter()
        if start is not None:
            count += int(first.shape[0])
            if now - start > seconds:
                return count / (now - start)
        # Buffers fill and threads are tuned at first.
        elif now - begin > seconds / 3:
            start = now
