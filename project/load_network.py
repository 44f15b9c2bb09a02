"""Settings become a stored network, as it is to be used, and what it is to be measured on."""

from dataclasses import replace

from library.errors import SettingsError
from library.evaluation.evaluate import evaluate
from library.evaluation.metrics import EvaluationOptions
from library.export.verification import read_export_samples
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.models.scores import is_multi_label
from library.prediction.calibrate import CalibratedSnapshot, calibrate, check_class_names
from library.prediction.ensemble import combine_snapshots
from library.saving.checkpoints import check_classes, check_multi_label
from library.saving.snapshots import load_snapshot
from project.assembly import make_evaluation_inputs, make_objective


def read_chosen_snapshot(settings):
    """Return the Snapshot to use: the best, another, or several as one; several views on request.

    Raises CheckpointError, SettingsError.
    """
    project = settings.project
    if project.ensemble and project.checkpoint:
        raise SettingsError("checkpoint and ensemble exclude each other")
    folders = project.ensemble or (project.checkpoint,)
    snapshots = [load_snapshot(each, project.best_model_dir) for each in folders]
    return combine_snapshots(snapshots, views=project.tta)


def make_inputs_for(snapshot, settings, split):
    """Return a split as snapshot's network wants it. Raises CheckpointError if classes differ."""
    check_classes(snapshot.folder, snapshot.classes, split.classes)
    check_multi_label(snapshot.folder, is_multi_label(snapshot.network), split.is_multi_label)
    return make_evaluation_inputs(settings, split, ImageFormat.of(snapshot.network))


def evaluate_snapshot(settings, snapshot, inputs, validation):
    """Return the EvaluationResult of a snapshot on `inputs`.

    The temperature is fitted on `validation`, which may be `inputs` itself, or None: no
    temperature. Raises DataError, DivergedError.
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


def fit_to_validation(settings, snapshot, split):
    """Return the snapshot, calibrated on the validation split (or None) as the settings ask.

    Its threshold is the settings' own where none is fitted. Raises UserError.
    """
    project = settings.project
    has_threshold = project.threshold is not None or project.threshold_precision is not None
    if has_threshold and not is_multi_label(snapshot.network):
        check_class_names(snapshot.classes)
    if split is None:
        return CalibratedSnapshot(snapshot, None, project.threshold)
    fitted = calibrate(
        snapshot,
        make_inputs_for(snapshot, settings, split),
        with_temperature=project.calibrate,
        precision=project.threshold_precision,
        xla=project.xla,
    )
    return fitted if fitted.threshold is not None else replace(fitted, threshold=project.threshold)


def make_samples(settings, snapshot, split, training_split=None):
    """Return the ExportSamples to compare exports with, and to calibrate them with if need be."""
    inputs = make_inputs_for(snapshot, settings, split)
    training = training_split and make_inputs_for(snapshot, settings, training_split)
    with explain_read_errors(*filter(None, (inputs, training))):
        return read_export_samples(split.name, make_source(split), inputs, training)
