"""Measure each stage of the input pipeline, and name the bottleneck."""

import csv
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import tensorflow as tf

from library.inputs.batching import make_batches, prefetch
from library.inputs.caching import CachedSource
from library.inputs.examples import ExampleSource, FileSource, GeneratorSource, ShardSource
from library.inputs.interfaces import TrainingInputs

_SECONDS = 3.0
# What speeds a stage up, by the kind of source.
_ADVICE = {
    ShardSource: {
        "read": "more num_parallel_reads, a faster disk, or a cache",
        "decode": "a smaller --max_edge when converting, more cores, or a cache",
    },
    FileSource: {
        "read": "convert (convert_dataset.py), more cores, or a cache",
        "decode": "convert (convert_dataset.py, which shrinks images), more cores, or a cache",
    },
    GeneratorSource: {
        "read": "write the images as files and convert them, or cache memory",
        "decode": "smaller images, more cores, or cache memory",
    },
    CachedSource: {"read": "cache memory instead of disk, or more cores", "decode": "more cores"},
}
# Inputs that are this much faster than the training do not hold it up.
_FASTER = 1.2
_AUGMENT_ADVICE = "fewer or cheaper augmentations, or more cores"


class AugmentedInputs(TrainingInputs, Protocol):
    """Training inputs that can be measured without their augmentations."""

    @property
    def is_augmented(self) -> bool:
        """Whether images are changed after they are decoded."""

    def without_augmentations(self) -> TrainingInputs:
        """Return the same inputs, with images cropped but not changed."""


@dataclass(frozen=True)
class Cost:
    """What an image costs in an input pipeline, in seconds.

    `seconds` pass on the clock; with several cores, `processor_seconds` may be more than that, and
    while the pipeline waits, less.
    """

    seconds: float
    processor_seconds: float


def measure_stages(training: AugmentedInputs, seconds: float | None = None) -> dict[str, float]:
    """Measure the input pipeline, each stage together with those before it.

    Args:
        training: The inputs.
        seconds: Time for each stage.

    Returns:
        Images per second by stage. read: the stored images in the order of the epoch; files that
        were not converted are also made into records. decode: pixels at the network's size.
        augment: everything; absent if images are not augmented.
    """
    seconds = seconds or _SECONDS
    without_augmentations = training.without_augmentations()
    rates = {
        "read": _images_per_second(stored_batches(training), seconds),
        "decode": _images_per_second(without_augmentations.batches(0), seconds),
    }
    if training.is_augmented:
        rates["augment"] = _images_per_second(training.batches(0), seconds)
    return rates


def stored_batches(training: TrainingInputs) -> tf.data.Dataset:
    """Return batches of what is stored, read by as many threads as prepare images in training."""
    batches = make_batches(
        training, training.keys(0), lambda position, key: training.source.stored_bytes(key)
    )
    # A GPU can't hold strings.
    return prefetch(batches, replace(training.options, device=None))


def shares_of_time(rates: dict[str, float]) -> dict[str, float]:
    """Return each stage's share of the time per image, from the result of `measure_stages`."""
    times = [0.0, *(1 / rate for rate in rates.values())]
    # Noise can make a stage look faster than the one that it contains.
    own = [max(0.0, after - before) for before, after in pairwise(times)]
    return {stage: each / sum(own) for stage, each in zip(rates, own, strict=True)}


def read_training_rate(history: Path) -> float | None:
    """Return the median images per second of a run's history.csv, or None if there is none."""
    if not history.is_file():
        return None
    with history.open(newline="", encoding="utf-8") as file:
        cells = [row.get("images_per_second") for row in csv.DictReader(file)]
    rates = [float(each) for each in cells if each]
    return statistics.median(rates) if rates else None


def format_stages(
    rates: dict[str, float], source: ExampleSource, trained: float | None = None
) -> Iterator[str]:
    """Yield the lines of a table of the stages, and one that names the bottleneck.

    Args:
        rates: The result of `measure_stages`.
        source: The source of the inputs measured; the advice depends on its kind.
        trained: Images per second that the run trained; None if it is not known.
    """
    shares = shares_of_time(rates)
    for stage, rate in rates.items():
        yield f"{stage:8} {rate:10,.0f} images/s   {shares[stage]:4.0%} of the time"
    *_, whole = rates.values()
    if trained is not None and whole > _FASTER * trained:
        yield (
            f"no bottleneck: the run trained {trained:,.0f} images/s, and the inputs give "
            f"{whole:,.0f}"
        )
        return
    slowest = max(shares, key=lambda stage: shares[stage])
    yield f"bottleneck: {slowest}; to speed it up: {advice_on(rates, source)}"


def advice_on(rates: dict[str, float], source: ExampleSource) -> str:
    """Return what speeds the slowest stage up, from the result of `measure_stages`."""
    shares = shares_of_time(rates)
    return advise_stage(max(shares, key=lambda stage: shares[stage]), source)


def advise_stage(stage: str, source: ExampleSource) -> str:
    """Return what speeds a stage up."""
    (advice,) = (each for kind, each in _ADVICE.items() if isinstance(source, kind))
    return advice.get(stage, _AUGMENT_ADVICE)


def _images_per_second(batches: tf.data.Dataset, seconds: float) -> float:
    return 1 / measure_cost(batches, seconds).seconds


def measure_cost(batches: tf.data.Dataset, seconds: float) -> Cost:
    """Measure after a warm-up, over as many epochs as the time allows."""
    count, start, now, processor = 0, 0.0, 0.0, 0.0
    begin = time.perf_counter()
    # The same dataset again: making another takes long compared with an epoch of few images.
    for element in batches.repeat():
        first = element[0] if isinstance(element, tuple) else element
        now = time.perf_counter()
        if start:
            count += int(first.shape[0])
            if now - start > seconds:
                break
        # Buffers fill and threads start at first.
        elif now - begin > seconds / 3:
            start, processor = now, time.process_time()
    return Cost((now - start) / count, (time.process_time() - processor) / count)
