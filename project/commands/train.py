"""The command train."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from library.errors import SettingsError
from library.training.cluster import read_cluster
from project.commands.setup import read_data, start_tensorflow

logger = logging.getLogger(__name__)


def train(settings):
    """Train and keep the best snapshot; go on where an earlier run stopped."""
    project = settings.project
    if project.debug and project.xla:
        raise SettingsError("debug checks the numbers of each operation, xla merges them: one only")
    cluster = read_cluster()
    train_split, validation_split = read_data(project, "train", "validation")
    start_tensorflow(project, cluster)
    from library.inputs.corruption import explain_read_errors
    from library.logging import report
    from library.training.debugging import OneBatch, check_overfit, numeric_checks
    from library.training.train_and_evaluate import check_one_batch, run_summary, train_and_evaluate
    from project import assembly
    from project.schedules import sketch

    classes = train_split.classes
    devices = _start_devices(settings, cluster)
    training = assembly.make_training_inputs(settings, train_split, devices.part)
    validation = assembly.make_evaluation_inputs(settings, validation_split, part=devices.part)
    if project.debug:
        training = validation = OneBatch(training)
    assembly.seed_everything(settings)
    with devices.strategy.scope():
        parts = assembly.make_parts(settings, train_split, training.batches_per_epoch)
    if devices.is_chief:
        report(run_summary(parts.network, classes, training, validation, devices))
    if settings.dry_run:
        report(f"learning rate: {sketch(parts.learning_rate, parts.learning_rate.updates)}")
        with explain_read_errors(training, validation):
            report(check_one_batch(parts.network, parts.objective, training, validation))
        return
    plan, paths = assembly.make_plan(settings), assembly.make_keeping(settings, train_split)
    with explain_read_errors(training, validation), numeric_checks(project.debug):
        splits, inputs = (train_split, validation_split), (training, validation)
        best = train_and_evaluate(
            parts.network,
            inputs,
            parts.objective,
            parts.optimizer,
            plan,
            paths,
            engine=project.engine,
            learning_rate=parts.learning_rate,
            averages=parts.averages,
            unfreezing=assembly.make_unfreezing(settings, parts.network),
            kept=assembly.make_kept(settings, parts.network, *inputs, splits, devices.replicas),
            devices=devices,
            xla=project.xla,
        )
    if not devices.is_chief:
        return
    report(
        f"best snapshot: {project.best_model_dir}, epoch {best['epoch']}, validation loss "
        f"{best['validation']['loss']:.4f}, accuracy {best['validation']['accuracy']:.4f}"
    )
    print(json.dumps({"snapshot": project.best_model_dir, **best}))
    if project.debug:
        report(check_overfit(best["validation"], training.examples))
    elif project.report:
        report_training(settings, (validation_split, train_split), validation)


def report_training(settings, splits, validation):
    """Write report.html about the best snapshot on the validation split, unless it is there."""
    try:
        from library.reporting.report import write_training_report
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.reporting"):
            raise
        logger.info("no HTML report: library/reporting is not installed")
        return
    from library.inputs.worker_slice import WHOLE_BATCH
    from project.load_network import evaluate_snapshot

    config = settings.project
    # This worker may have prepared a part of each batch only.
    inputs = replace(validation, worker_slice=WHOLE_BATCH)
    write_training_report(
        Path(config.run_dir),
        Path(config.best_model_dir),
        splits,
        lambda snapshot: evaluate_snapshot(settings, snapshot, inputs, inputs),
        config.data_dir,
    )


def _start_devices(settings, cluster):
    """Return the Devices to train on. Raises SettingsError for what several of them can't do."""
    from tensorflow import config

    from library.training.distribution import start_devices

    project, learn = settings.project, settings.hyperparameters
    devices = start_devices(cluster, project.worker_wait_secs)
    devices.check_batch_size("train_batch_size", project.train_batch_size)
    devices.check_batch_size("eval_batch_size", project.eval_batch_size)
    if devices.replicas > 1 and not config.list_logical_devices("GPU"):
        # TensorFlow's exchange between CPUs can be neither compiled nor made conditional.
        if project.xla:
            raise SettingsError("xla needs GPUs where several devices train together")
        if learn.gradient_accumulation_steps > 1:
            raise SettingsError(
                "gradient_accumulation_steps needs GPUs where several devices train together"
            )
    return devices
