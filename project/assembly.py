"""Settings become inputs, a network and an objective: the one place where the parts meet."""

from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from library.choices import ChoiceError, unknown
from library.errors import SettingsError
from library.evaluation.calibration import fit_temperature
from library.evaluation.measures import Asked
from library.evaluation.predictions import predict_batches
from library.evaluation.probabilities import is_multi_label, to_probabilities
from library.evaluation.stored import read_stored
from library.inputs.balance import class_weights
from library.inputs.caching import cache_examples
from library.inputs.damage import naming_damage
from library.inputs.decoding import ImageFormat
from library.inputs.examples import Reading, make_examples
from library.inputs.parts import WHOLE
from library.prediction.combining import combine
from library.prediction.threshold import fit_threshold
from library.shipping.samples import read_samples
from library.training import distribution
from library.training.averages import Averages
from library.training.checkpoints import check_classes, check_kind
from library.training.history import report
from library.training.monitoring import Goal
from library.training.plan import Keeping, Plan
from library.training.profiling import read_profile_steps
from library.training.snapshots import DATA, data_text
from library.transfer.features import (
    FrozenBase,
    Kept,
    KeptTraining,
    KeptValidation,
    Numbers,
    keep_features,
    split_at_base,
)
from library.transfer.freezing import Unfreezing, freeze_parts, layer_rates, scale_rates
from library.transfer.loading import load_weights
from project.augmentations import NO_AUGMENTATIONS, choose_augmentations
from project.inputs import EvaluationInputs, TrainingInputs
from project.networks import make_network
from project.networks.heads import choose_head
from project.objective import MultiLabelObjective, Objective
from project.optimizers import make_optimizer
from project.schedules import LearningRate


def make_training_inputs(settings, split, part=WHOLE):
    """Give the shuffled and augmented training split, or a worker's part. Raises SettingsError."""
    project, learn = settings.project, settings.hyperparameters
    part = replace(part, by_file=project.shard_by_file)
    is_oversampled = learn.balance == "oversample"
    if is_oversampled and split.has_several:
        raise SettingsError(
            "balance oversample needs images of one class each, these have several: class_weight"
        )
    if is_oversampled and part.has_own_shards:
        raise SettingsError("balance oversample counts over all shards: leave out shard_by_file")
    if not project.deterministic:
        report("deterministic false: no epoch can be repeated, so going on in mid-epoch is inexact")
    augmentations = choose_augmentations(learn.augmentations)
    source = make_examples(split, project.parallel_interleave_sources)
    return TrainingInputs(
        source=_cached(settings, source, split, _image_format(project), augmentations.crops),
        image_format=_image_format(project),
        batch_size=project.train_batch_size,
        shuffle_examples=min(
            project.shuffle_examples, max(1, project.shuffle_bytes // source.mean_bytes)
        ),
        seed=project.random_seed,
        augmentations=augmentations,
        is_oversampled=is_oversampled,
        part=part,
        reading=_reading(project),
    )


def make_evaluation_inputs(settings, split, image_format=None, part=WHOLE):
    """Give a split as it is, in the settings' image format or another."""
    project = settings.project
    image_format = image_format or _image_format(project)
    source = make_examples(split, project.parallel_interleave_sources)
    shards = len(getattr(split, "shards", ()))
    return EvaluationInputs(
        source=_cached(settings, source, split, image_format, crops=False),
        image_format=image_format,
        batch_size=project.eval_batch_size,
        # A split in fewer shards than there are workers is read whole by each: it is small.
        part=replace(part, by_file=project.shard_by_file and shards >= part.count),
        reading=_reading(project),
    )


def _cached(settings, source, split, image_format, crops):
    project = settings.project
    return cache_examples(
        source,
        image_format,
        project.cache,
        crops=crops,
        cache_dir=project.cache_dir,
        fingerprint=split.fingerprint,
    )


def make_inputs_for(snapshot, settings, manifest):
    """Give a split as the snapshot's network wants it. Raises CheckpointError if classes differ."""
    check_classes(snapshot.folder, snapshot.classes, manifest.classes)
    check_kind(snapshot.folder, is_multi_label(snapshot.network), manifest.has_several)
    _, height, _, channels = snapshot.network.input_shape
    return make_evaluation_inputs(settings, manifest, ImageFormat(height, channels))


def read_network(settings):
    """Give the Snapshot to use: the best, another, or several as one; several views on request.

    Raises CheckpointError, SettingsError.
    """
    project = settings.project
    if project.ensemble and project.checkpoint:
        raise SettingsError("checkpoint and ensemble exclude each other")
    folders = project.ensemble or (project.checkpoint,)
    snapshots = [read_stored(each, project.best_model_dir) for each in folders]
    return combine(snapshots, views=project.tta)


def words_of_network(settings):
    """Give words that tell what read_network gives from the best snapshot: for a file's name."""
    project = settings.project
    words = [Path(project.checkpoint).name] if project.checkpoint else []
    words += ["ensemble"] if project.ensemble else []
    return [*words, f"tta{project.tta}"] if project.tta > 1 else words


def fit_to_validation(settings, snapshot, split):
    """Give (Snapshot, temperature, threshold), as asked for, fitted on the validation split.

    The snapshot's scores are divided by the temperature, None where none was asked for or fits; the
    threshold is a probability, or None. Raises UserError.
    """
    project = settings.project
    temperature, threshold = None, project.threshold
    if split is None:
        return snapshot, temperature, threshold
    inputs = make_inputs_for(snapshot, settings, split)
    with naming_damage(inputs):
        found = predict_batches(snapshot.network, inputs.named_batches(), xla=project.xla)
    if project.calibrate:
        temperature = fit_temperature(found.scores, found.labels)
        report(f"temperature {temperature:.4f}" if temperature else "no temperature fits")
    if project.threshold_precision is not None:
        if found.several:
            raise SettingsError("threshold_precision is for one class an image: use threshold")
        probabilities = np.asarray(to_probabilities(found.scores, temperature or 1.0))
        fitted = fit_threshold(probabilities, found.labels, project.threshold_precision)
        report(fitted.describe())
        threshold = fitted.probability
    return combine([snapshot], [temperature or 1.0]), temperature, threshold


def make_samples(settings, snapshot, split, training_split):
    """Give the Samples to compare exports with, and to calibrate them with."""
    inputs = make_inputs_for(snapshot, settings, split)
    training = make_inputs_for(snapshot, settings, training_split)
    with naming_damage(inputs, training):
        return read_samples(split.name, make_examples(split), inputs, training)


def start_devices(settings, cluster=None):
    """Give the Devices to train on. Raises SettingsError for what several of them can't do."""
    project, learn = settings.project, settings.hyperparameters
    devices = distribution.start_devices(cluster, project.worker_wait_secs)
    devices.check_batch_size("train_batch_size", project.train_batch_size)
    devices.check_batch_size("eval_batch_size", project.eval_batch_size)
    if devices.replicas > 1 and not tf.config.list_logical_devices("GPU"):
        # TensorFlow's exchange between CPUs can be neither compiled nor made conditional.
        if project.xla:
            raise SettingsError("xla needs GPUs where several devices train together")
        if learn.gradient_accumulation_steps > 1:
            raise SettingsError(
                "gradient_accumulation_steps needs GPUs where several devices train together"
            )
    return devices


def describe(parts, training, validation, classes, devices):
    """Give one line for the start: the network, the data and the devices."""
    network = parts.network
    return (
        f"{network.name}: {network.count_params():,} parameters; {len(classes)} classes, "
        f"{training.examples:,} training and {validation.examples:,} validation images, "
        f"{training.batches_per_epoch:,} steps of {training.batch_size} an epoch, "
        f"on {devices.describe(training.batch_size)}"
    )


def check_one_batch(parts, training, validation):
    """Run one batch of each split through the network. Give one line with the shapes."""
    words = []
    for name, batches in (("training", training.batches(0)), ("validation", validation.batches())):
        images, labels = next(iter(batches))
        scores = parts.network(tf.cast(images, tf.float32), training=False)
        parts.objective.measures(labels, scores)
        words.append(f"{name} images {tuple(images.shape)} → scores {tuple(scores.shape)}")
    return "dry run, nothing written: " + ", ".join(words)


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
    averages: Averages | None


def make_parts(settings, split, batches_per_epoch):
    """Give the Parts. Raises SettingsError for unknown names and settings that exclude another."""
    project, learn = settings.project, settings.hyperparameters
    keras.mixed_precision.set_global_policy(
        project.dtype if project.dtype == "float32" else f"mixed_{project.dtype}"
    )
    values = {**learn.model_dump(), "head": choose_head(learn.head, split.has_several)}
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
    _transfer(network, learn)
    # Small float16 gradients vanish unless the loss is scaled up; bfloat16 has float32's range.
    scale = project.loss_scale or ("dynamic" if project.dtype == "float16" else None)
    weights = network.trainable_variables
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    optimizer = make_optimizer(
        learn.optimizer, learning_rate, values, weights, replicas=replicas, loss_scale=scale
    )
    if learn.layer_rate_decay < 1:
        scale_rates(optimizer, layer_rates(network, learn.layer_rate_decay))
    decay = learn.moving_average_decay
    averages = Averages(network, decay) if decay is not None else None
    objective = make_objective(settings, split, has_several=split.has_several)
    if project.best_metric not in objective.names:
        raise SettingsError(
            f"best_metric {project.best_metric} is measured where images have several classes each"
        )
    return Parts(network, objective, optimizer, learning_rate, averages)


def make_unfreezing(settings, network):
    """Give which blocks are trained from which epoch on, or None for all from the start."""
    stages = settings.hyperparameters.unfreezing
    return Unfreezing(network, stages) if stages else None


def make_kept(settings, network, training, validation, splits):
    """Give what trains on kept features, or None where the base runs in every epoch.

    `splits` are those of `training` and `validation`. Runs the base over both, unless an earlier
    run kept what it gave.
    """
    project, learn = settings.project, settings.hyperparameters
    views = (learn.feature_views or 0) if learn.augmentations else 1
    is_off = project.keep_features == "never" or not views or training.augmentations.mixes
    both = None if is_off else split_at_base(network)
    if not both or not all(each.fingerprint for each in splits):
        return None
    base, head = FrozenBase(both[0]), both[1]

    def keep(inputs, split, batches, numbers, view=()):
        key = (split.fingerprint, inputs.image_format, view)
        source = keep_features(
            base, batches, numbers, inputs.source, project.cache_dir, key, report
        )
        return replace(inputs, source=source)

    plain = replace(training, augmentations=NO_AUGMENTATIONS)
    # Each image once: those of smaller classes are repeated when training.
    once = replace(training, is_oversampled=False)
    numbered = replace(once, source=Numbers(training.source))
    kept = []
    for view in range(views):
        words = (learn.augmentations, project.random_seed, view) if learn.augmentations else ()
        # The view that this epoch would see.
        batches, numbers = once.batches(view), numbered.keys(view)
        kept.append(keep(plain, splits[0], batches, numbers, words))
    numbers = Numbers(validation.source).keys()
    in_order = keep(validation, splits[1], validation.batches(), numbers)
    return Kept(head, KeptTraining(tuple(kept)), KeptValidation(in_order))


def _transfer(network, learn):
    """Load the weights to begin with, and freeze what is not to be trained."""
    if learn.checkpoint_path:
        loading = load_weights(network, learn.checkpoint_path, learn.checkpoint_exclude_scopes)
        for line in loading.lines():
            report(line)
    freeze_parts(network, learn.trainable_scopes, learn.freeze)


def make_objective(settings, training_split=None, *, has_several=False):
    """Give what is minimised and measured, for images of one class each or of several.

    The training split tells what each class weighs.
    """
    learn = settings.hyperparameters
    weights = None
    if training_split:
        classes, counts = training_split.classes, training_split.class_counts
        weights = class_weights(learn.class_weight, classes, counts)
    kind = MultiLabelObjective if has_several else Objective
    return kind(learn.xentropy_label_smoothing, learn.l2_regularization, weights)


def make_whole(inputs):
    """Give all of the inputs of which a worker has a part."""
    return replace(inputs, part=WHOLE)


def make_asked(settings):
    """Give what evaluation works out."""
    project = settings.project
    return Asked(project.top_k, project.bootstrap_samples, project.random_seed)


def make_plan(settings):
    """Give how long to train and how often to do what."""
    project, learn = settings.project, settings.hyperparameters
    goal = Goal(
        metric=project.best_metric,
        mode=project.best_metric_mode,
        min_delta=project.early_stopping_min_delta,
        patience=project.early_stopping_patience,
        plateau_patience=learn.plateau_patience,
        plateau_factor=learn.plateau_factor,
        stop_threshold=project.stop_threshold,
    )
    if goal.metric not in MultiLabelObjective.names:
        raise ChoiceError(unknown("best_metric", goal.metric, MultiLabelObjective.names))
    # The rest of a plan has the names of its settings.
    values = {each.name: getattr(project, each.name, None) for each in fields(Plan)}
    profile_steps = read_profile_steps(project.profile_steps)
    return Plan(**{**values, "profile_steps": profile_steps, "goal": goal})


def make_keeping(settings, training_split):
    """Give where the run keeps what."""
    project = settings.project
    return Keeping(
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
    """Give the settings as resolved, as files from which the run can be repeated."""
    return {
        "project.yaml": settings.project_yaml(),
        "hyperparameters.yaml": settings.hyperparameters_yaml(),
    }


def _image_format(project):
    return ImageFormat(project.image_size, project.channels)


def _reading(project):
    gpus = tf.config.list_logical_devices("GPU")
    return Reading(
        num_parallel_reads=project.num_parallel_reads,
        num_parallel_calls=project.num_parallel_calls,
        prefetch_examples=project.prefetch_examples,
        prefetch_batches=project.prefetch_batches,
        prefetch_to_device=project.prefetch_to_device,
        # Several devices get their shares from TensorFlow, ahead of time too.
        device=gpus[0].name if len(gpus) == 1 else None,
        deterministic=project.deterministic,
    )
