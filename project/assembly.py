"""Settings become a network, an objective and a trainer: the one place where they meet."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from library.configuration.reader import Settings
from library.configuration.schema import COMMAND_LINE, DEFAULT, Value
from library.errors import SettingsError
from library.evaluation.split_metric import SPLIT_METRICS, is_split_metric, make_split_metric
from library.inputs.balance import class_weights, logit_offsets
from library.limits import check_output_sizes
from library.messages import ChoiceError, unknown_name
from library.models.blocks import BASE, list_blocks
from library.models.features import (
    ReusedNetwork,
)
from library.models.freezing import Unfreezing, freeze_layers, layer_rate_factors
from library.models.functional import allow_image_size
from library.models.fused_normalization import fuse_batch_normalization
from library.models.presets import read_preset
from library.models.weights import load_weights
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import DATA, data_text
from library.training.debugging import OneBatch
from library.training.distribution import Devices, synchronize_batch_norm
from library.training.early_stopping import Monitor
from library.training.ema import ExponentialMovingAverage
from library.training.keras_fit import KerasFitTrainer
from library.training.listeners import Listener
from library.training.parts import Parts, RunInputs
from library.training.plan import Plan, RunPaths
from library.training.profiler import read_profile_steps
from library.training.trainer import Trainer, default_listeners
from project.data_defaults import choose_batch_size, choose_head_learning_rate, resume_features
from project.input_assembly import (
    image_format_of,
    make_cached_features,
    make_evaluation_inputs,
    make_training_inputs,
    with_native_size,
)
from project.networks import make_network
from project.networks.heads import choose_head
from project.objective import MultiLabelObjective, Objective, choose_loss
from project.optimizers import OptimizerOptions, make_optimizer
from project.schedules import LearningRate

logger = logging.getLogger(__name__)

# A head on cached features takes less time for a step than Python does for a call.
_STEPS_ON_FEATURES = 30
# What `--engine` may be.
ENGINES = {"loop": Trainer, "fit": KerasFitTrainer}


def make_trainer(
    settings: Settings,
    splits: Sequence[Any],
    devices: Devices,
    reused: ReusedNetwork | None = None,
    listeners: Sequence[Listener] = (),
) -> Trainer:
    """Return what trains the network of the settings.

    Args:
        settings: The settings.
        splits: The training and the validation split.
        devices: What to train on.
        reused: The network of an earlier trainer of the same settings, which is not used any more;
            None: a new network.
        listeners: What to report to beside the default listeners.

    Raises:
        SettingsError: A name is unknown, or settings exclude each other.
    """
    if settings.project.engine not in ENGINES:
        raise SettingsError(f"engine beam is for predict; train with {' or '.join(ENGINES)}")
    settings = resume_features(with_native_size(settings))
    settings = choose_batch_size(settings, splits[0], devices.replicas)
    config, part = settings.project, devices.worker_slice
    metric = config.best_metric
    split_metric = make_split_metric(metric, splits[1]) if is_split_metric(metric) else None
    training = make_training_inputs(settings, splits[0], part)
    image_format = image_format_of(config, splits[0])
    validation = make_evaluation_inputs(settings, splits[1], image_format, part)
    inputs = RunInputs(training, validation)
    if config.debug:
        batch: Any = OneBatch(training)
        inputs = RunInputs(batch, batch)
    seed_everything(settings)
    with devices.strategy.scope():
        parts = make_parts(settings, splits[0], inputs.training.batches_per_epoch, reused)
    stages = settings.hyperparameters.unfreezing
    unfreezing = Unfreezing(parts.network, stages) if stages else None
    epochs = unfreezing.first_epoch if unfreezing else math.inf
    cached = make_cached_features(
        settings, parts.network, (training, validation), splits, devices.replicas, epochs
    )
    if cached and reused:
        cached = replace(cached, cache=reused.cache)
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
    is_default = settings.values["steps_per_execution"].provenance == DEFAULT
    if is_default and cached and cached.is_frozen_to_the_end:
        plan = replace(plan, steps_per_execution=_STEPS_ON_FEATURES)
    if parts.head_learning_rate and settings.hyperparameters.head_learning_rate is None:
        # As a run from these settings needs it.
        rate = parts.head_learning_rate / _learning_rate_scale(settings)
        settings = settings.with_values({"head_learning_rate": Value(rate, "for a new head")})
    paths = make_run_paths(settings, splits[0])
    # A network is reused for other folds of the same images, which take little time to train.
    usual = default_listeners(shows_inputs=reused is None)
    listeners = [*usual, *_make_tracking(settings, splits), *listeners]
    return ENGINES[config.engine](parts, inputs, plan, paths, devices, listeners)


def _make_tracking(settings: Settings, splits: Sequence[Any]) -> list[Listener]:
    """Return what reports a training to the trackers of the settings, if they name any."""
    if not settings.project.trackers:
        return []
    try:
        from project.trackers import make_listener
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library."):
            raise
        raise SettingsError(f"trackers need {error.name}, which was deleted") from None
    return [make_listener(settings, splits)]


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
    if config.num_gpus is None and not tf.config.list_logical_devices("GPU"):
        _log_unused_gpus()
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


def _log_unused_gpus() -> None:
    try:
        from library.machine.nvidia import log_unused_gpus
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.machine"):
            raise
    else:
        log_unused_gpus()


def _refuse_asynchronous(settings: Settings, replicas: int) -> None:
    if replicas > 1 and not settings.project.sync_replicas:
        raise SettingsError(
            f"sync_replicas false: training on {replicas} devices is always synchronous; leave it "
            "out, or train on one device"
        )


def seed_everything(settings: Settings) -> None:
    """Fix the initial weights and the dropout by `random_seed`, and the operations on request."""
    keras.utils.set_random_seed(settings.project.random_seed)
    if settings.project.deterministic_ops:
        tf.config.experimental.enable_op_determinism()


def make_parts(
    settings: Settings,
    split: Any,
    batches_per_epoch: int,
    reused: ReusedNetwork | None = None,
) -> Parts:
    """Return what is trained, and how.

    Args:
        settings: The settings.
        split: The training split.
        batches_per_epoch: Number of steps per epoch.
        reused: The network of an earlier trainer; None: a new network.

    Raises:
        SettingsError: A name is unknown, or settings exclude each other.
    """
    settings = resume_features(with_native_size(settings))
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
    image_shape = image_format_of(config, split).shape
    network = (
        reused.reset()
        if reused
        else make_network(hparams.model, image_shape, len(split.classes), values)
    )
    try:
        check_output_sizes(network)
    except ValueError as error:
        raise SettingsError(f"model {hparams.model}: {error}; use a smaller image_size") from None
    if config.synchronized_batch_norm:
        synchronize_batch_norm(network)
    if not config.xla:
        fuse_batch_normalization(network)
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
                image_format_of(config, training_split).fit,
                _describe_pretrained(hparams),
            ),
        },
        settings=settings.as_json(),
        defaults={name for name, each in settings.values.items() if each.provenance == DEFAULT},
        hyperparameters=set(type(hparams).model_fields),
    )


def _describe_pretrained(hparams: Any) -> dict[str, str] | None:
    """Return the source of pretrained weights and their license, as far as they are known."""
    if hparams.model == "preset":
        preset = read_preset(hparams.preset)
        return {"source": f"keras-hub preset {preset.handle}", "license": preset.license}
    return None
