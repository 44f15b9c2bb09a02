"""Settings become inputs, a network, an objective and a trainer: the one place where they meet."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from library.configuration.reader import Settings
from library.configuration.schema import COMMAND_LINE, DEFAULT, Value
from library.dataset.manifest import image_options_of
from library.errors import SettingsError
from library.evaluation.split_metric import SPLIT_METRICS, is_split_metric, make_split_metric
from library.inputs.aspect_ratio import SQUEEZED, Fit
from library.inputs.balance import class_weights, logit_offsets, oversampled_count
from library.inputs.caching import cache_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import PipelineOptions, make_source
from library.inputs.worker_slice import WHOLE_BATCH, WorkerSlice
from library.limits import check_output_sizes
from library.messages import ChoiceError, unknown_name
from library.models.blocks import BASE, list_blocks
from library.models.features import CachedFeatures, cache_split_features, split_at_base
from library.models.freezing import Unfreezing, freeze_layers, layer_rate_factors
from library.models.functional import allow_image_size
from library.models.presets import read_preset
from library.models.weights import load_weights
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import DATA, data_text
from library.training.debugging import OneBatch
from library.training.distribution import Devices, synchronize_batch_norm
from library.training.early_stopping import Monitor
from library.training.ema import ExponentialMovingAverage
from library.training.keras_fit import KerasFitTrainer
from library.training.parts import Parts, RunInputs
from library.training.plan import Plan, RunPaths
from library.training.profiler import read_profile_steps
from library.training.trainer import Trainer
from project.augmentations import choose_augmentations
from project.data_defaults import choose_batch_size, choose_head_learning_rate
from project.inputs import EvaluationPipeline, TrainingPipeline
from project.networks import make_network
from project.networks.heads import choose_head
from project.objective import MultiLabelObjective, Objective, choose_loss
from project.optimizers import OptimizerOptions, make_optimizer
from project.schedules import LearningRate, read_steps

logger = logging.getLogger(__name__)

# What `--engine` may be.
ENGINES = {"loop": Trainer, "fit": KerasFitTrainer}
# Views per image whose features are cached if the images are augmented.
DEFAULT_VIEWS = 4
# Memory of one key in the shuffle buffer, with the tensor around it.
_KEY_BYTES = 256


def make_trainer(settings: Settings, splits: Sequence[Any], devices: Devices) -> Trainer:
    """Return what trains the network of the settings.

    Args:
        settings: The settings.
        splits: The training and the validation split.
        devices: What to train on.

    Raises:
        SettingsError: A name is unknown, or settings exclude each other.
    """
    settings = with_native_size(settings)
    settings = choose_batch_size(settings, splits[0], devices.replicas)
    config, part = settings.project, devices.worker_slice
    metric = config.best_metric
    split_metric = make_split_metric(metric, splits[1]) if is_split_metric(metric) else None
    training = make_training_inputs(settings, splits[0], part)
    image_format = _image_format(config, splits[0])
    validation = make_evaluation_inputs(settings, splits[1], image_format, part)
    inputs = RunInputs(training, validation)
    if config.debug:
        batch: Any = OneBatch(training)
        inputs = RunInputs(batch, batch)
    seed_everything(settings)
    with devices.strategy.scope():
        parts = make_parts(settings, splits[0], inputs.training.batches_per_epoch)
    stages = settings.hyperparameters.unfreezing
    unfreezing = Unfreezing(parts.network, stages) if stages else None
    epochs = unfreezing.first_epoch if unfreezing else math.inf
    cached = make_cached_features(
        settings, parts.network, (training, validation), splits, devices.replicas, epochs
    )
    parts = replace(parts, unfreezing=unfreezing, cached_features=cached, split_metric=split_metric)
    if training.is_augmented_later and not config.debug:
        parts = replace(parts, augment=training.augmentations.apply_drawn)
    if cached and (training.stages or parts.augment):
        name = "progressive" if training.stages else "augment_on_device"
        raise SettingsError(
            f"{name} has no effect on cached features: use --cache_features never, or remove it"
        )
    for _, image_format in training.stages:
        allow_image_size(parts.network, image_format.shape)
    plan = make_plan(settings, inputs.training.batches_per_epoch)
    if parts.head_learning_rate and settings.hyperparameters.head_learning_rate is None:
        # As a run from these settings needs it.
        rate = parts.head_learning_rate / _learning_rate_scale(settings)
        settings = settings.with_values({"head_learning_rate": Value(rate, "for a new head")})
    paths = make_run_paths(settings, splits[0])
    return ENGINES[config.engine](parts, inputs, plan, paths, devices)


def start_devices(settings: Settings, cluster: Any = None) -> Devices:
    """Return the devices to train on.

    Args:
        settings: The settings.
        cluster: The Cluster (library/distributed) that this process belongs to; None: no other.

    Raises:
        SettingsError: The devices can't train as the settings want.
        UserError: Other workers of the cluster did not appear.
    """
    config, hparams = settings.project, settings.hyperparameters
    if cluster is None:
        gpus = tf.config.list_logical_devices("GPU")
        devices = Devices(tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else None)
    else:
        from library.distributed.devices import start_workers

        # Before anybody waits for the others.
        _refuse_asynchronous(settings, len(cluster.addresses))
        devices = start_workers(cluster, config.worker_wait_secs)
    for name in ("train_batch_size", "eval_batch_size"):
        if (size := getattr(config, name)) is not None:
            devices.check_batch_size(name, size)
    _refuse_asynchronous(settings, devices.replicas)
    if settings.values["sync_replicas"] == (True, COMMAND_LINE):
        logger.info("sync_replicas has no effect: training on several devices is synchronous")
    if devices.replicas > 1 and not tf.config.list_logical_devices("GPU"):
        # TensorFlow's all-reduce between CPUs can be neither compiled nor made conditional.
        if config.xla:
            raise SettingsError("xla needs GPUs if several devices train together")
        if hparams.gradient_accumulation_steps > 1:
            raise SettingsError(
                "gradient_accumulation_steps needs GPUs if several devices train together"
            )
    return devices


def _refuse_asynchronous(settings: Settings, replicas: int) -> None:
    if replicas > 1 and not settings.project.sync_replicas:
        raise SettingsError(
            f"sync_replicas false: training on {replicas} devices is always synchronous; leave it "
            "out, or train on one device"
        )


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
    source = make_source(split, config.parallel_interleave_sources, config.num_parallel_reads)
    image_format = _image_format(config, split)
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
    image_format = image_format or _image_format(config, split)
    source = make_source(split, config.parallel_interleave_sources, config.num_parallel_reads)
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


def seed_everything(settings: Settings) -> None:
    """Fix the initial weights and the dropout by `random_seed`, and the operations on request."""
    keras.utils.set_random_seed(settings.project.random_seed)
    if settings.project.deterministic_ops:
        tf.config.experimental.enable_op_determinism()


def make_parts(settings: Settings, split: Any, batches_per_epoch: int) -> Parts:
    """Return what is trained, and how.

    Args:
        settings: The settings.
        split: The training split.
        batches_per_epoch: Number of steps per epoch.

    Raises:
        SettingsError: A name is unknown, or settings exclude each other.
    """
    settings = with_native_size(settings)
    settings = choose_batch_size(settings, split)
    config, hparams = settings.project, settings.hyperparameters
    keras.mixed_precision.set_global_policy(
        config.dtype if config.dtype == "float32" else f"mixed_{config.dtype}"
    )
    values = {**hparams.model_dump(), "head": choose_head(hparams.head, split.is_multi_label)}
    scale = _learning_rate_scale(settings)
    values["learning_rate"] *= scale
    schedule = LearningRate(
        hparams.learning_rate_decay_type,
        values,
        total_steps=make_plan(settings, batches_per_epoch).total_steps(batches_per_epoch),
        steps_per_epoch=batches_per_epoch,
    )
    image_shape = _image_format(config, split).shape
    network = make_network(hparams.model, image_shape, len(split.classes), values)
    try:
        check_output_sizes(network)
    except ValueError as error:
        raise SettingsError(f"model {hparams.model}: {error}; use a smaller image_size") from None
    if config.synchronized_batch_norm:
        synchronize_batch_norm(network)
    has_new_head = _load_and_freeze(network, config, hparams)
    head_rate = choose_head_learning_rate(settings, scale, has_new_head and hparams.fine_tuning)
    head_factor = head_rate / values["learning_rate"] if head_rate else 1.0
    ema_decay = hparams.moving_average_decay
    options = OptimizerOptions(
        replicas=tf.distribute.get_strategy().num_replicas_in_sync,
        # Small float16 gradients vanish unless the loss is scaled up; bfloat16 has float32's range.
        loss_scale=config.loss_scale or ("dynamic" if config.dtype == "float16" else None),
        rate_factors=layer_rate_factors(network, hparams.layer_rate_decay, head_factor),
    )
    optimizer = make_optimizer(
        hparams.optimizer, schedule, values, network.trainable_variables, options
    )
    ema = ExponentialMovingAverage(network, ema_decay) if ema_decay is not None else None
    objective = make_objective(settings, split, is_multi_label=split.is_multi_label)
    if config.best_metric not in objective.names and not is_split_metric(config.best_metric):
        raise SettingsError(f"best_metric {config.best_metric} needs multi-label data")
    return Parts(
        network,
        objective,
        optimizer,
        schedule,
        ema,
        learning_rate=values["learning_rate"],
        head_learning_rate=head_rate,
    )


def _learning_rate_scale(settings: Settings) -> float:
    batch_size = settings.hyperparameters.learning_rate_batch_size
    return settings.project.train_batch_size / batch_size if batch_size else 1.0


def _load_and_freeze(network: keras.Model, config: Any, hparams: Any) -> bool:
    """Load pretrained weights, and freeze what is not to be trained.

    Returns:
        Whether a part of the head is new, on a base.
    """
    head = {each.name for each in list_blocks(network)[-1]}
    has_new_head = any(each.name == BASE for each in network.layers)
    if hparams.checkpoint_exclude_scopes and not hparams.checkpoint_path:
        raise SettingsError("checkpoint_exclude_scopes needs a checkpoint_path")
    is_resumed = config.resume != "never" and Checkpoints(config.model_dir).paths()
    # A checkpoint of the run itself holds all weights.
    if hparams.checkpoint_path and not is_resumed:
        loading = load_weights(network, hparams.checkpoint_path, hparams.checkpoint_exclude_scopes)
        for line in loading.lines():
            logger.info(line)
        skipped = {layer for (layer, _), reason in loading.reasons.items() if reason}
        has_new_head = has_new_head and bool(head & skipped)
    freeze_layers(network, hparams.trainable_scopes, hparams.freeze)
    return has_new_head


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
    make = partial(cache_split_features, base, inputs, fingerprints, views, config.cache_dir)
    return CachedFeatures(head, make, frozen_epochs)


def make_objective(
    settings: Settings, training_split: Any = None, *, is_multi_label: bool = False
) -> Objective:
    """Return what is minimized, and the metrics.

    Args:
        settings: The settings.
        training_split: Determines class weights and priors; None: only the metrics are needed.
        is_multi_label: Whether an image may have several classes, or none.
    """
    hparams = settings.hyperparameters
    kind = MultiLabelObjective if is_multi_label else Objective
    if not training_split:
        return kind()
    classes, counts = training_split.classes, training_split.class_counts
    tau = hparams.logit_adjustment
    if tau and (hparams.balance == "oversample" or hparams.class_weight == ("auto",)):
        raise SettingsError(
            "logit_adjustment, class_weight auto and balance oversample each balance the classes: "
            "use one of them"
        )
    return kind(
        hparams.xentropy_label_smoothing,
        hparams.l2_regularization,
        class_weights(hparams.class_weight, classes, counts),
        choose_loss(hparams.model_dump(), is_multi_label=is_multi_label),
        logit_offsets(counts, tau) if tau else None,
    )


def make_plan(settings: Settings, batches_per_epoch: int = 1) -> Plan:
    """Return how long to train, and how often to do what.

    Args:
        settings: The settings.
        batches_per_epoch: Number of steps per epoch, which turns train_steps into epochs.
    """
    config, hparams = settings.project, settings.hyperparameters
    metrics = (*MultiLabelObjective.names, *SPLIT_METRICS)
    if config.best_metric not in metrics and not is_split_metric(config.best_metric):
        raise ChoiceError(unknown_name("best_metric", config.best_metric, metrics))
    epochs, steps = config.train_epochs, config.max_train_steps
    if config.train_steps is not None:
        epochs = -(-config.train_steps // batches_per_epoch)
    return Plan(
        train_epochs=epochs,
        max_train_steps=steps,
        max_minutes=config.max_minutes,
        steps_per_execution=config.steps_per_execution,
        xla=config.xla,
        epochs_between_evals=config.epochs_between_evals,
        steps_between_evals=config.steps_between_evals,
        eval_throttle_secs=config.eval_throttle_secs,
        max_eval_steps=config.max_eval_steps,
        save_summary_steps=config.save_summary_steps,
        weight_histograms=config.weight_histograms,
        profile_steps=read_profile_steps(config.profile_steps),
        save_checkpoints_secs=config.save_checkpoints_secs,
        keep_checkpoint_max=config.keep_checkpoint_max,
        resume=config.resume,
        monitor=Monitor(
            metric=config.best_metric,
            mode=config.best_metric_mode,
            min_delta=config.early_stopping_min_delta,
            patience=config.early_stopping_patience,
            plateau_patience=hparams.plateau_patience,
            plateau_factor=hparams.plateau_factor,
            stop_threshold=config.stop_threshold,
        ),
    )


def make_run_paths(settings: Settings, training_split: Any) -> RunPaths:
    """Return where the run writes, and what it writes beside the networks."""
    config, hparams = settings.project, settings.hyperparameters
    return RunPaths(
        run_dir=Path(config.run_dir),
        checkpoints=Path(config.model_dir),
        best=Path(config.best_model_dir),
        classes=tuple(training_split.classes),
        # The settings as resolved, from which the run can be repeated.
        texts={
            "project.yaml": settings.project_yaml(),
            "hyperparameters.yaml": settings.hyperparameters_yaml(),
            DATA: data_text(
                training_split,
                _image_format(config, training_split).fit,
                _describe_pretrained(hparams),
            ),
        },
        settings={**config.model_dump(mode="json"), **hparams.model_dump(mode="json")},
        defaults={name for name, each in settings.values.items() if each.provenance == DEFAULT},
        hyperparameters=set(type(hparams).model_fields),
    )


def _describe_pretrained(hparams: Any) -> dict[str, str] | None:
    """Return the source of pretrained weights and their license, as far as they are known."""
    if hparams.model == "preset":
        preset = read_preset(hparams.preset)
        return {"source": f"keras-hub preset {preset.handle}", "license": preset.license}
    return None


def _image_format(config: Any, training_split: Any) -> ImageFormat:
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
