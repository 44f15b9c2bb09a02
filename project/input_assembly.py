"""Settings become inputs: the splits, decoded, augmented and in batches."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from library.configuration.reader import Settings
from library.configuration.schema import DEFAULT, Value
from library.dataset.manifest import image_options_of
from library.errors import SettingsError
from library.inputs.aspect_ratio import SQUEEZED, Fit
from library.inputs.balance import oversampled_count
from library.inputs.caching import cache_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import ExampleSource, PipelineOptions, make_source
from library.inputs.worker_slice import WHOLE_BATCH, WorkerSlice
from library.models.features import (
    CachedFeatures,
    FeatureCache,
    cache_split_features,
    split_at_base,
)
from library.models.presets import read_preset
from project.augmentations import choose_augmentations
from project.data_defaults import choose_batch_size
from project.inputs import EvaluationPipeline, TrainingPipeline
from project.schedules import read_steps

logger = logging.getLogger(__name__)

# Views per image whose features are cached if the images are augmented.
DEFAULT_VIEWS = 2
# Memory of one key in the shuffle buffer, with the tensor around it.
_KEY_BYTES = 256


def with_native_size(settings: Settings) -> Settings:
    """Return the settings with the image size of the preset, unless they have one of their own.

    Raises:
        SettingsError: There is no such preset.
        UserError: The preset can't be downloaded.
    """
    hparams = settings.hyperparameters
    if hparams.model != "preset" or settings.values["image_size"].provenance != DEFAULT:
        return settings
    names, native = ("image_size", "image_width"), read_preset(hparams.preset).image_size
    size = {
        name: edge
        for name, edge in zip(names, native, strict=True)
        if settings.values[name].provenance == DEFAULT
    }
    values = {name: Value(edge, f"preset {hparams.preset}") for name, edge in size.items()}
    return settings.with_values(values)


def make_training_inputs(
    settings: Settings, split: Any, worker_slice: WorkerSlice = WHOLE_BATCH
) -> TrainingPipeline:
    """Return the training split, shuffled and augmented.

    Args:
        settings: The settings.
        split: The split.
        worker_slice: The part of each batch that this worker prepares.

    Raises:
        SettingsError: Settings exclude each other.
    """
    settings = with_native_size(settings)
    settings = choose_batch_size(settings, split)
    config, hparams = settings.project, settings.hyperparameters
    worker_slice = replace(worker_slice, by_file=config.shard_by_file)
    is_oversampled = hparams.balance == "oversample"
    if is_oversampled:
        _check_oversampling(hparams, split, worker_slice)
    if not config.deterministic:
        logger.warning("deterministic false: resuming within an epoch is inexact")
    augmentations = choose_augmentations(hparams.augmentations)
    if augmentations.has_mixing:
        worker_slice.check_pairs(config.train_batch_size)
    if words := augmentations.without_effect(config.channels):
        logger.warning(f"augmentations without effect on gray images: {', '.join(words)}")
    if config.augment_on_device:
        augmentations.check_batched()
    source = make_split_source(config, split, is_trained=True)
    image_format = image_format_of(config, split)
    if augmentations.has_crop:
        # Random windows are squeezed whatever the fit is, so all runs can share cached features.
        image_format = replace(image_format, fit=SQUEEZED)
    stages = _read_stages(settings, image_format)
    # Pixels can be cached only if all epochs take the same.
    has_same_pixels = not augmentations.has_crop and not stages
    return TrainingPipeline(
        source=_cached(config, source, split, image_format if has_same_pixels else None),
        image_format=image_format,
        batch_size=config.train_batch_size,
        shuffle_examples=_shuffle_examples(config, source, is_oversampled),
        seed=config.random_seed,
        augmentations=augmentations,
        is_oversampled=is_oversampled,
        worker_slice=worker_slice,
        options=_pipeline_options(config),
        is_augmented_later=config.augment_on_device and augmentations.has_more_than_crop,
        stages=stages,
    )


def make_split_source(config: Any, split: Any, *, is_trained: bool = False) -> ExampleSource:
    """Return the examples of a split, as the settings read them.

    Args:
        config: The settings of project.yaml.
        split: The split.
        is_trained: Whether the settings limit the number of passes over the split.
    """
    source = make_source(split, config.parallel_interleave_sources, config.num_parallel_reads)
    if config.stream_gigabytes is None:
        return source
    from library.streaming.source import stream

    epochs = math.inf
    if is_trained and config.train_steps is None:
        epochs = config.train_epochs
    if is_trained and config.max_train_steps is not None:
        batches = -(-source.count // config.train_batch_size)
        epochs = min(epochs, -(-config.max_train_steps // batches))
    return stream(source, split, epochs)


def _read_stages(settings: Settings, full: ImageFormat) -> tuple[tuple[int, ImageFormat], ...]:
    """Return the epochs at which the size of training images changes, and their formats then.

    `full` is the format of the network's own size.
    """
    config, words = settings.project, settings.hyperparameters.progressive
    if words and config.debug:
        logger.warning("progressive has no effect with debug")
        return ()
    steps = read_steps("progressive", words)
    for epoch, factor in steps:
        if epoch < 0 or epoch % 1 or not 0 < factor <= 1:
            raise SettingsError(
                f"progressive: {epoch:g}={factor:g} must be a whole epoch from 0 and a factor of "
                "the image size above 0 and up to 1, such as 0=0.5 or 10=1"
            )
    if len(dict(steps)) < len(steps):
        raise SettingsError("progressive: two factors begin at the same epoch; remove one")
    *_, last = [1.0, *(factor for epoch, factor in steps if epoch < config.train_epochs)]
    if last < 1:
        logger.warning(
            f"progressive: the last epochs train at {last:g} of the image size, but evaluation is "
            "at full size"
        )
    return tuple((int(epoch), full.scaled(factor)) for epoch, factor in steps)


def _check_oversampling(hparams: Any, split: Any, worker_slice: WorkerSlice) -> None:
    if split.is_multi_label:
        raise SettingsError("balance oversample needs one class per image: use class_weight")
    if worker_slice.has_own_shards:
        raise SettingsError("balance oversample and shard_by_file exclude each other")
    if hparams.class_weight == ("auto",):
        raise SettingsError(
            "class_weight auto and balance oversample both balance the classes: use one of them"
        )


def _shuffle_examples(config: Any, source: Any, is_oversampled: bool) -> int:
    """Return the size of the shuffle buffer, in examples."""
    if is_oversampled and source.is_shuffled:
        # The order is perfect but for the copies of each example, which lie together; and the
        # buffer holds only keys.
        in_memory = config.shuffle_bytes // _KEY_BYTES
        return min(oversampled_count(source.class_counts), max(1, in_memory))
    return min(config.shuffle_examples, max(1, config.shuffle_bytes // source.mean_bytes))


def make_evaluation_inputs(
    settings: Settings,
    split: Any,
    image_format: ImageFormat | None = None,
    worker_slice: WorkerSlice = WHOLE_BATCH,
) -> EvaluationPipeline:
    """Return a split as it is: every example once, in order.

    Args:
        settings: The settings.
        split: The split.
        image_format: The network's input; None: that of the settings.
        worker_slice: The part of each batch that this worker prepares.
    """
    config = settings.project
    image_format = image_format or image_format_of(config, split)
    source = make_split_source(config, split)
    # Each worker reads all of a split that has fewer shards than there are workers.
    shards = len(getattr(split, "shards", ()))
    by_file = config.shard_by_file and shards >= worker_slice.count
    return EvaluationPipeline(
        source=_cached(config, source, split, image_format),
        image_format=image_format,
        batch_size=config.eval_batch_size,
        worker_slice=replace(worker_slice, by_file=by_file),
        options=_pipeline_options(config),
    )


def _cached(config: Any, source: Any, split: Any, image_format: ImageFormat | None) -> Any:
    """Return the examples, cached; without an image format, the encoded images are."""
    return cache_examples(source, image_format, config.cache, config.cache_dir, split.fingerprint)


def make_cached_features(
    settings: Settings,
    network: keras.Model,
    inputs: tuple[TrainingPipeline, EvaluationPipeline],
    splits: Sequence[Any],
    replicas: int = 1,
    frozen_epochs: float = math.inf,
) -> CachedFeatures | None:
    """Return the cached features of a frozen base, or None if the base runs in every epoch.

    Args:
        settings: The settings.
        network: The whole network.
        inputs: The training and the validation inputs, which the base will run over once, unless
            an earlier run has cached its features.
        splits: The splits of these inputs.
        replicas: Number of replicas that train. Only a single one uses cached features.
        frozen_epochs: Number of epochs before any of the base is unfrozen.
    """
    config, hparams = settings.project, settings.hyperparameters
    base_and_head = split_at_base(network, is_trained_later=0 < frozen_epochs < math.inf)
    fingerprints = [each.fingerprint for each in splits]
    augmentations = inputs[0].augmentations
    is_on = config.cache_features != "never" and not config.debug and replicas == 1
    is_possible = is_on and all(fingerprints) and not augmentations.has_mixing
    if hparams.cached_views and not (base_and_head and is_possible and hparams.augmentations):
        logger.warning(
            f"cached_views {hparams.cached_views} has no effect: it needs a frozen base, "
            "augmentations other than mixup and cutmix, cache_features auto, one device, and no "
            "generator"
        )
    if not base_and_head or not is_possible:
        return None
    count = hparams.cached_views or int(min(DEFAULT_VIEWS, config.train_epochs, frozen_epochs))
    changes = (augmentations.fingerprint, config.random_seed)
    views = [(*changes, view) for view in range(count)] if hparams.augmentations else [()]
    base, head = base_and_head
    cache = FeatureCache(base, config.cache_dir)
    make = partial(cache_split_features, inputs=inputs, fingerprints=fingerprints, views=views)
    return CachedFeatures(head, cache, make, frozen_epochs)


def image_format_of(config: Any, training_split: Any) -> ImageFormat:
    """Return the network's input as the settings have it, and the background of the data."""
    fraction = config.crop_fraction or 1.0
    fit = Fit(config.fit, fraction, image_options_of(training_split).background)
    return ImageFormat(config.image_size, config.channels, config.image_width, fit)


def _pipeline_options(config: Any) -> PipelineOptions:
    gpus = tf.config.list_logical_devices("GPU")
    return PipelineOptions(
        num_parallel_calls=config.num_parallel_calls,
        prefetch_examples=config.prefetch_examples,
        prefetch_batches=config.prefetch_batches,
        prefetch_to_device=config.prefetch_to_device,
        # With several devices TensorFlow distributes the shares, ahead of time too.
        device=gpus[0].name if len(gpus) == 1 else None,
        deterministic=config.deterministic,
    )
