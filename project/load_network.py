"""Settings become a stored network, as it is to be used, and what it is to be measured on."""

import hashlib
from dataclasses import replace
from pathlib import Path

import yaml

from library.errors import SettingsError
from library.evaluation.evaluate import evaluate
from library.evaluation.metrics import MetricOptions
from library.export.verification import read_export_samples
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.models.scores import is_multi_label
from library.prediction.calibrate import CalibratedSnapshot, calibrate, check_class_names
from library.prediction.ensemble import combine_snapshots
from library.reporting.runs import read_settings_file
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


def name_results(project, results):
    """Return the name of the files about what was measured: the split's alone for the plain best.

    Whatever else was measured has another name each. `results` as results_of gives them.
    """
    words = [results["split"]]
    if project.checkpoint:
        words.append(_distinct(Path(project.checkpoint).name, project.checkpoint))
    if project.ensemble:
        words.append(_distinct("ensemble", *project.ensemble))
    if project.tta > 1:
        words.append(f"tta{project.tta}")
    if not results["data"]["is_own"]:
        words.append(_distinct(Path(project.data_dir).name, project.data_dir))
    if results["images"] < results["images_in_split"]:
        words.append(f"first{results['images']}")
    return "-".join(words)


def is_own_data(project):
    """Return whether the data to measure on are those of the run in run_dir, as far as it tells."""
    written = read_settings_file(Path(project.run_dir, "project.yaml"))
    for key, value, _ in written:
        if key == "data_dir":
            return Path(str(yaml.safe_load(value))).resolve() == Path(project.data_dir).resolve()
    return True


def _distinct(word, *places):
    """Return a word with a few digits that are others for other places."""
    content = "\n".join(str(Path(each).resolve()) for each in places)
    return f"{word}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def make_inputs_for(snapshot, settings, split):
    """Return a split as snapshot's network wants it. Raises CheckpointError if classes differ."""
    check_classes(snapshot.folder, snapshot.classes, split.classes)
    check_multi_label(snapshot.folder, is_multi_label(snapshot.network), split.is_multi_label)
    return make_evaluation_inputs(settings, split, ImageFormat.of(snapshot.network))


def evaluate_snapshot(settings, snapshot, inputs, validation):
    """Return the Judgement of a snapshot on `inputs`; `validation` is for the temperature, or None.

    They may be the same. Raises DataError, DivergedError.
    """
    project = settings.project
    with explain_read_errors(*filter(None, (inputs, validation))):
        return evaluate(
            snapshot.network,
            snapshot.classes,
            inputs,
            make_objective(settings, is_multi_label=is_multi_label(snapshot.network)),
            validation=validation,
            asked=MetricOptions(project.top_k, project.bootstrap_samples, project.random_seed),
            max_steps=project.max_eval_steps,
            xla=project.xla,
        )


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
