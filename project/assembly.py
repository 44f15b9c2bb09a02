"""Settings become inputs, a network and an objective: the one place where the parts meet."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.balance import class_weights, oversampled_count
from library.inputs.caching import cache_examples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import PipelineOptions, make_source
from library.inputs.worker_slice import WHOLE_BATCH
from library.logging import report
from library.messages import ChoiceError, unknown_name
from library.models.feature_cache import cache_split_features
from library.models.features import CachedFeatures, split_at_base
from library.models.freezing import Unfreezing, freeze_layers, layer_rate_factors
from library.models.weights import load_weights
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import DATA, data_text
from library.training import distribution
from library.training.early_stopping import Monitor
from library.training.ema import ExponentialMovingAverage
from library.training.plan import Plan, RunPaths
from library.training.profiler import read_profile_steps
from project.augmentations import choose_augmentations
from project.inputs import EvaluationPipeline, TrainingPipeline
from project.networks import make_network
from project.networks.heads import choose_head
from project.objective import MultiLabelObjective, Objective
from project.optimizers import make_optimizer
from project.schedules import LearningRate

# What a number takes in the buffer that shuffles, with the tensor around it.
_NUMBER_BYTES = 256


def make_training_inputs(settings, split, part=WHOLE_BATCH):
    """Return shuffled and augmented training split, or a worker's part. Raises SettingsError."""
    project, learn = settings.project, settings.hyperparameters
    part = replace(part, by_file=project.shard_by_file)
    is_oversampled = learn.balance == "oversample"
    if is_oversampled:
        _check_oversampling(learn, split, part)
    if not project.deterministic:
        report("deterministic false: no epoch can be repeated, so going on in mid-epoch is inexact")
    augmentations = choose_augmentations(learn.augmentations)
    if augmentations.has_mixing:
        part.check_pairs(project.train_batch_size)
    if words := augmentations.without_effect(project.channels):
        text = "change colors alone: nothing with channels 1"
        report(f"augmentations: {', '.join(words)} {text}")
    source = make_source(split, project.parallel_interleave_sources)
    return TrainingPipeline(
        source=_cached(settings, source, split, _image_format(project), augmentations.has_crop),
        image_format=_image_format(project),
        batch_size=project.train_batch_size,
        shuffle_examples=_shuffle_examples(project, source, is_oversampled),
        seed=project.random_seed,
        augmentations=augmentations,
        is_oversampled=is_oversampled,
        worker_slice=part,
        options=_reading(project),
    )


def _check_oversampling(learn, split, part):
    if split.is_multi_label:
        raise SettingsError(
            "balance oversample needs images of one class each, these have several: class_weight"
        )
    if part.has_own_shards:
        raise SettingsError("balance oversample counts over all shards: leave out shard_by_file")
    if learn.class_weight == ("auto",):
        raise SettingsError(
            "class_weight auto and balance oversample each balance the classes: leave one of them"
        )


def _shuffle_examples(project, source, is_oversampled):
    """Return how many examples to draw the next one from."""
    if is_oversampled and source.is_shuffled:
        # In perfect order but for the copies of each, which lie together; and these are numbers.
        in_memory = project.shuffle_bytes // _NUMBER_BYTES
        return min(oversampled_count(source.class_counts), max(1, in_memory))
    return min(project.shuffle_examples, max(1, project.shuffle_bytes // source.mean_bytes))


def make_evaluation_inputs(settings, split, image_format=None, part=WHOLE_BATCH):
    """Return a split as it is, in the settings' image format or another."""
    project = settings.project
    image_format = image_format or _image_format(project)
    source = make_source(split, project.parallel_interleave_sources)
    shards = len(getattr(split, "shards", ()))
    return EvaluationPipeline(
        source=_cached(settings, source, split, image_format, crops=False),
        image_format=image_format,
        batch_size=project.eval_batch_size,
        # A split in fewer shards than there are workers is read whole by each: it is small.
        worker_slice=replace(part, by_file=project.shard_by_file and shards >= part.count),
        options=_reading(project),
    )


def _cached(settings, source, split, image_format, crops):
    project = settings.project
    return cache_examples(
        source,
        image_format,
        project.cache,
        has_crop=crops,
        cache_dir=project.cache_dir,
        fingerprint=split.fingerprint,
    )


def seed_everything(settings):
    """Fix the initial weights and the dropout by `random_seed`, and the operations on request."""
    keras.utils.set_random_seed(settings.project.random_seed)
    if settings.project.deterministic_ops:
        tf.config.experimental.enable_op_determinism()


class Parts(NamedTuple):
    """What is trained, and how."""

    network: keras.Model
    objective: Objective
    optimizer: keras.Optimizer
    learning_rate: LearningRate
    averages: ExponentialMovingAverage | None


def make_parts(settings, split, batches_per_epoch):
    """Return Parts. Raises SettingsError for unknown names and settings that exclude another."""
    project, learn = settings.project, settings.hyperparameters
    keras.mixed_precision.set_global_policy(
        project.dtype if project.dtype == "float32" else f"mixed_{project.dtype}"
    )
    values = {**learn.model_dump(), "head": choose_head(learn.head, split.is_multi_label)}
    if learn.learning_rate_batch_size:
        values["learning_rate"] *= project.train_batch_size / learn.learning_rate_batch_size
    learning_rate = LearningRate(
        learn.learning_rate_decay_type,
        values,
        total_steps=make_plan(settings).total_steps(batches_per_epoch),
        steps_per_epoch=batches_per_epoch,
    )
    network = make_network(learn.model, _image_format(project).shape, len(split.classes), values)
    if project.synchronized_batch_norm:
        distribution.synchronize_batch_norm(network)
    _transfer(network, project, learn)
    # Small float16 gradients vanish unless the loss is scaled up; bfloat16 has float32's range.
    scale = project.loss_scale or ("dynamic" if project.dtype == "float16" else None)
    weights = network.trainable_variables
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    decay = learn.layer_rate_decay
    optimizer = make_optimizer(
        learn.optimizer,
        learning_rate,
        values,
        weights,
        replicas=replicas,
        loss_scale=scale,
        rate_factors=layer_rate_factors(network, decay) if decay < 1 else (),
    )
    decay = learn.moving_average_decay
    averages = ExponentialMovingAverage(network, decay) if decay is not None else None
    objective = make_objective(settings, split, is_multi_label=split.is_multi_label)
    if project.best_metric not in objective.names:
        raise SettingsError(
            f"best_metric {project.best_metric} is measured where images have several classes each"
        )
    return Parts(network, objective, optimizer, learning_rate, averages)


def make_unfreezing(settings, network):
    """Return which blocks are trained from which epoch on, or None for all from the start."""
    stages = settings.hyperparameters.unfreezing
    return Unfreezing(network, stages) if stages else None


def make_kept(settings, network, training, validation, splits, replicas=1):
    """Return what trains on kept features, or None where the base runs in every epoch.

    `splits` are those of `training` and `validation`. The base will run over both, unless an
    earlier run kept what it gave. Features are kept, and read, by one device alone: where
    `replicas` train, there are none.
    """
    project, learn = settings.project, settings.hyperparameters
    both, fingerprints = split_at_base(network), [each.fingerprint for each in splits]
    is_off = project.cache_features == "never" or project.debug or replicas > 1
    is_off = is_off or training.augmentations.has_mixing
    can_keep = both and all(fingerprints) and not is_off
    if learn.cached_views and not (can_keep and learn.augmentations):
        report(
            f"cached_views {learn.cached_views} has no effect: it wants a frozen base, "
            "augmentations but mixup and cutmix, cache_features auto, one device, no generator"
        )
    count = (learn.cached_views or 0) if learn.augmentations else 1
    if not can_keep or not count:
        return None
    changes = (training.augmentations.fingerprint, project.random_seed)
    views = [(*changes, view) for view in range(count)] if learn.augmentations else [()]
    base, head = both
    of = (base, training, validation, fingerprints, views, project.cache_dir)
    return CachedFeatures(head, partial(cache_split_features, *of))


def _transfer(network, project, learn):
    """Load the weights to begin with, and freeze what is not to be trained."""
    goes_on = project.resume != "never" and Checkpoints(project.model_dir).paths()
    if learn.checkpoint_exclude_scopes and not learn.checkpoint_path:
        raise SettingsError(
            "checkpoint_exclude_scopes says what of checkpoint_path is left out, and there is none"
        )
    # The run's own checkpoint holds all weights.
    if learn.checkpoint_path and not goes_on:
        loading = load_weights(network, learn.checkpoint_path, learn.checkpoint_exclude_scopes)
        for line in loading.lines():
            report(line)
    freeze_layers(network, learn.trainable_scopes, learn.freeze)


def make_objective(settings, training_split=None, *, is_multi_label=False):
    """Return what is minimized and measured, for images of one class each or of several.

    The training split tells what each class weighs.
    """
    learn = settings.hyperparameters
    weights = None
    if training_split:
        classes, counts = training_split.classes, training_split.class_counts
        weights = class_weights(learn.class_weight, classes, counts)
    kind = MultiLabelObjective if is_multi_label else Objective
    return kind(learn.xentropy_label_smoothing, learn.l2_regularization, weights)


def make_plan(settings):
    """Return how long to train and how often to do what."""
    project, learn = settings.project, settings.hyperparameters
    if project.best_metric not in MultiLabelObjective.names:
        names = MultiLabelObjective.names
        raise ChoiceError(unknown_name("best_metric", project.best_metric, names))
    goal = Monitor(
        metric=project.best_metric,
        mode=project.best_metric_mode,
        min_delta=project.early_stopping_min_delta,
        patience=project.early_stopping_patience,
        plateau_patience=learn.plateau_patience,
        plateau_factor=learn.plateau_factor,
        stop_threshold=project.stop_threshold,
    )
    # The rest of a plan has the names of its settings.
    values = {each.name: getattr(project, each.name, None) for each in fields(Plan)}
    profile_steps = read_profile_steps(project.profile_steps)
    return Plan(**{**values, "profile_steps": profile_steps, "goal": goal})


def make_keeping(settings, training_split):
    """Return where the run keeps what."""
    project = settings.project
    return RunPaths(
        run_dir=Path(project.run_dir),
        checkpoints=Path(project.model_dir),
        best=Path(project.best_model_dir),
        classes=tuple(training_split.classes),
        texts={**settings_files(settings), DATA: data_text(training_split)},
        settings={
            **project.model_dump(mode="json"),
            **settings.hyperparameters.model_dump(mode="json"),
        },
    )


def settings_files(settings):
    """Return the settings as resolved, as files from which the run can be repeated."""
    return {
        "project.yaml": settings.project_yaml(),
        "hyperparameters.yaml": settings.hyperparameters_yaml(),
    }


def _image_format(project):
    return ImageFormat(project.image_size, project.channels, project.image_width)


def _reading(project):
    gpus = tf.config.list_logical_devices("GPU")
    return PipelineOptions(
        num_parallel_reads=project.num_parallel_reads,
        num_parallel_calls=project.num_parallel_calls,
        prefetch_examples=project.prefetch_examples,
        prefetch_batches=project.prefetch_batches,
        prefetch_to_device=project.prefetch_to_device,
        # Several devices get their shares from TensorFlow, ahead of time too.
        device=gpus[0].name if len(gpus) == 1 else None,
        deterministic=project.deterministic,
    )
