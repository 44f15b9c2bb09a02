"""Settings become inputs, a network and an objective: the one place where the parts meet."""

from pathlib import Path

import keras
import tensorflow as tf

from library.training.loop import Keeping, Plan, check_classes
from project.augmentations import choose_augmentations
from project.inputs import EvaluationInputs, ImageFormat, Reading, TrainingInputs
from project.networks import make_network
from project.objective import Objective, make_optimizer, make_schedule


def make_training_inputs(settings, manifest):
    """Give the shuffled and augmented training split. Raises SettingsError."""
    project = settings.project
    crop, augmentations = choose_augmentations(settings.hyperparameters.augmentations)
    return TrainingInputs(
        paths=_paths(manifest),
        examples=manifest.examples,
        image_format=_image_format(project),
        batch_size=project.train_batch_size,
        shuffle_examples=project.shuffle_examples,
        seed=project.random_seed,
        crop=crop,
        augmentations=tuple(augmentations),
        reading=_reading(project),
    )


def make_evaluation_inputs(settings, manifest, image_format=None):
    """Give a split as it is, in the settings' image format or another."""
    project = settings.project
    return EvaluationInputs(
        paths=_paths(manifest),
        examples=manifest.examples,
        image_format=image_format or _image_format(project),
        batch_size=project.eval_batch_size,
        reading=_reading(project),
    )


def make_inputs_for(snapshot, settings, manifest):
    """Give a split as the snapshot's network wants it. Raises CheckpointError if classes differ."""
    check_classes(settings.project.best_model_dir, snapshot.classes, manifest.classes)
    _, height, _, channels = snapshot.network.input_shape
    return make_evaluation_inputs(settings, manifest, ImageFormat(height, channels))


def describe(parts, training, validation, classes):
    """Give one line for the start: the network, the data and the device."""
    network, _, _ = parts
    device = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return (
        f"{network.name}: {network.count_params():,} parameters; {len(classes)} classes, "
        f"{training.examples:,} training and {validation.examples:,} validation images, "
        f"{training.batches_per_epoch:,} steps of {training.batch_size} an epoch, "
        f"on {device[0].name}"
    )


def check_one_batch(parts, training, validation):
    """Run one batch of each split through the network. Give one line with the shapes."""
    network, objective, _ = parts
    words = []
    for name, batches in (("training", training.batches(0)), ("validation", validation.batches())):
        images, labels = next(iter(batches))
        scores = network(tf.cast(images, tf.float32), training=False)
        objective.measures(labels, scores)
        words.append(f"{name} images {tuple(images.shape)} → scores {tuple(scores.shape)}")
    return "dry run, nothing written: " + ", ".join(words)


def seed_everything(settings):
    """Fix the initial weights and the dropout by `random_seed`."""
    keras.utils.set_random_seed(settings.project.random_seed)


def make_parts(settings, class_count, batches_per_epoch):
    """Give (network, objective, optimizer)."""
    learn = settings.hyperparameters
    network = make_network(
        learn.model, _image_format(settings.project).shape, class_count, learn.model_dump()
    )
    schedule = make_schedule(
        learn.learning_rate_decay_type,
        learn.learning_rate,
        total_steps=make_plan(settings).total_steps(batches_per_epoch),
        warmup_steps=round(learn.warmup_epochs * batches_per_epoch),
        end_learning_rate=learn.end_learning_rate,
    )
    optimizer = make_optimizer(
        schedule,
        adam_beta1=learn.adam_beta1,
        adam_beta2=learn.adam_beta2,
        adam_epsilon=learn.adam_epsilon,
    )
    return network, make_objective(settings), optimizer


def make_objective(settings):
    """Give what is minimised and measured."""
    learn = settings.hyperparameters
    return Objective(learn.xentropy_label_smoothing, learn.l2_regularization)


def make_plan(settings):
    """Give how long to train and how often to do what."""
    project = settings.project
    return Plan(
        train_epochs=project.train_epochs,
        epochs_between_evals=project.epochs_between_evals,
        max_train_steps=project.max_train_steps,
        max_eval_steps=project.max_eval_steps,
        save_summary_steps=project.save_summary_steps,
        save_checkpoints_secs=project.save_checkpoints_secs,
        keep_checkpoint_max=project.keep_checkpoint_max,
        resume=project.resume,
    )


def make_keeping(settings, classes):
    """Give where the run keeps what."""
    project = settings.project
    return Keeping(
        run_dir=Path(project.run_dir),
        checkpoints=Path(project.model_dir),
        best=Path(project.best_model_dir),
        classes=tuple(classes),
        texts=settings_files(settings),
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


def _paths(manifest):
    return tuple(str(path) for path in manifest.paths)


def _image_format(project):
    return ImageFormat(project.image_size, project.channels)


def _reading(project):
    return Reading(project.num_parallel_reads, project.num_parallel_calls, project.prefetch_batches)
