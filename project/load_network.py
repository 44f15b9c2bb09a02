"""Settings become a snapshot to use, and the inputs to evaluate or calibrate it on.

Ensembles and calibration are imported only if they are asked for: evaluating a single snapshot
works without library/prediction.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.configuration.reader import Settings
from library.dataset.folds import read_fold_splits
from library.dataset.manifest import SUFFIX
from library.dataset.sources.base import TRAINING
from library.dataset.splits import read_manifest_at
from library.errors import SettingsError, UserError
from library.evaluation.evaluate import EvaluationResult, evaluate
from library.evaluation.metrics import EvaluationOptions
from library.inputs.corruption import explain_read_errors
from library.models.scores import is_multi_label
from library.saving.checkpoints import check_classes, check_multi_label
from library.saving.snapshots import Snapshot, load_snapshot
from project.assembly import make_objective
from project.commands.setup import for_data, read_data
from project.input_assembly import make_evaluation_inputs
from project.inputs import EvaluationPipeline
from project.settings import Project

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from library.prediction.calibrate import CalibratedSnapshot
    from library.prediction.fit_unknown import UnknownFit


def read_chosen_snapshot(settings: Settings) -> Snapshot:
    """Return the snapshot that the settings choose: the best, another one, or an ensemble.

    Raises:
        CheckpointError: It is absent or damaged.
        SettingsError: Two settings exclude each other.
    """
    config = settings.project
    if config.ensemble and config.checkpoint:
        raise SettingsError("checkpoint and ensemble exclude each other")
    folders = config.ensemble or (config.checkpoint,)
    snapshots = [load_snapshot(each, config.best_model_dir) for each in folders]
    if len(snapshots) == config.tta == 1:
        return snapshots[0]
    from library.prediction.ensemble import combine_snapshots

    return combine_snapshots(snapshots, views=config.tta)


def make_inputs_for(snapshot: Snapshot, settings: Settings, split: Any) -> EvaluationPipeline:
    """Return inputs of a split with images as the snapshot's network takes them.

    Args:
        snapshot: The snapshot.
        settings: The settings.
        split: The split, as `read_data` returns it.

    Raises:
        CheckpointError: The split has other classes.
    """
    if split.name != TRAINING and has_other_training_images(snapshot, settings.project):
        logger.warning(
            f"{snapshot.folder} was trained on another training split than the one in "
            f"{settings.project.data_dir}: images of {split.name} may be among those that it "
            "learned, and its metrics too good"
        )
    check_classes(snapshot.folder, snapshot.classes, split.classes)
    check_multi_label(snapshot.folder, is_multi_label(snapshot.network), split.is_multi_label)
    return make_evaluation_inputs(settings, split, snapshot.image_format)


def has_other_training_images(snapshot: Snapshot, config: Project) -> bool:
    """Return whether the training split in data_dir is not the one that a snapshot learned.

    False if either is unknown, such as that of images that were not converted.
    """
    learned = {each.data.get("fingerprint") for each in snapshot.members or (snapshot,)} - {None}
    if config.data_format != "tfrecord" or config.train_metadata or not learned:
        return False
    folder = f"{config.data_dir.rstrip('/')}/{TRAINING}"
    try:
        if config.fold:
            training = read_fold_splits(config.data_dir, config.fold, fetch=False)[TRAINING]
            return learned != {training.fingerprint}
        return learned != {read_manifest_at(f"{folder}/{TRAINING}{SUFFIX}").fingerprint}
    except UserError:
        return False


def evaluate_snapshot(
    settings: Settings,
    snapshot: Snapshot,
    inputs: EvaluationPipeline,
    validation: EvaluationPipeline | None,
) -> EvaluationResult:
    """Evaluate a snapshot.

    Args:
        settings: The settings.
        snapshot: The snapshot.
        inputs: What to evaluate it on.
        validation: What to fit the temperature on, which may be `inputs`; None for no temperature.

    Raises:
        DataError: An image can't be read.
        DivergedError: The network's outputs are NaN or infinite.
    """
    config = settings.project
    options = EvaluationOptions(
        top_k=config.top_k,
        bootstrap_samples=config.bootstrap_samples,
        seed=config.random_seed,
        max_steps=config.max_eval_steps,
        xla=config.xla,
    )
    objective = make_objective(settings, is_multi_label=is_multi_label(snapshot.network))
    with explain_read_errors(*filter(None, (inputs, validation))):
        return evaluate(snapshot, inputs, objective, options, validation)


def fit_to_validation(settings: Settings, snapshot: Snapshot, split: Any) -> "CalibratedSnapshot":
    """Return the snapshot, calibrated as the settings ask, with what tells unknown images.

    Args:
        settings: The settings; their own threshold is taken unless one is fitted.
        snapshot: The snapshot.
        split: The validation split, or None to fit neither temperature nor threshold.

    Raises:
        UserError: The settings do not suit the snapshot, or an image can't be read.
    """
    from library.prediction.calibrate import CalibratedSnapshot, calibrate, check_class_names

    config = settings.project
    rate = config.unknown_rate
    has_threshold = config.threshold is not None or config.threshold_precision is not None
    if rate is not None or (has_threshold and not is_multi_label(snapshot.network)):
        check_class_names(snapshot.classes)
    fitted = CalibratedSnapshot(snapshot)
    if split is not None:
        fitted = calibrate(
            snapshot,
            make_inputs_for(snapshot, settings, split),
            with_temperature=config.calibrate,
            precision=config.threshold_precision,
            xla=config.xla,
        )
    if fitted.threshold is None:
        fitted = replace(fitted, threshold=config.threshold)
    if rate is None:
        return fitted
    detector = find_unknown_fit(settings, snapshot).make_detector(rate, fitted.temperature)
    return replace(fitted, detector=detector)


def find_unknown_fit(settings: Settings, snapshot: Snapshot) -> "UnknownFit":
    """Return what tells unknown images, from the run's file or else from its data.

    Raises:
        UserError: A split is missing, does not suit the snapshot, or can't be read.
    """
    from library.prediction.fit_unknown import fit_unknown, read_unknown_fit, write_unknown_fit

    config = settings.project
    path = Path(config.run_dir) / f"unknown_{config.unknown_score}.npz"
    if found := read_unknown_fit(path, snapshot, config.unknown_score):
        return found
    splits = read_data(for_data(config), "train", "validation")
    training, validation = (make_inputs_for(snapshot, settings, each) for each in splits)
    fit = fit_unknown(snapshot, config.unknown_score, training, validation, xla=config.xla)
    write_unknown_fit(path, fit)
    return fit
