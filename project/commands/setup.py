"""What most commands begin with: TensorFlow, started late and quietly, and the splits."""

import sys

from library.dataset.splits import find_joined, read_splits
from library.errors import DataError, SettingsError
from library.messages import counted
from library.tensorflow_import import import_tensorflow


def start_tensorflow(project, cluster=None):
    """Import TensorFlow and start the devices that the settings choose.

    Where several workers train together, they are started together, later.
    """

    def choose():
        from library.training.distribution import choose_devices

        choose_devices(
            project.num_gpus,
            gpu_growth=project.gpu_growth,
            intra_op_threads=project.intra_op_threads,
            inter_op_threads=project.inter_op_threads,
        )
        return cluster is None

    import_tensorflow(project.verbose, choose)


def read_data(project, *names):
    """Return the splits, converted or not, in order. Raises DataError, SettingsError."""
    if project.data_format != "csv" and (project.csv_columns or project.label_separator):
        raise SettingsError(
            "csv_columns and label_separator are for data_format csv; when converting they are "
            "options of convert_dataset.py"
        )
    if project.data_format == "tfrecord":
        return read_splits(project.data_dir, *names)
    from library.logging import report

    if project.data_format == "generator":
        from library.dataset.unconverted import read_generated

        import_tensorflow(project.verbose, lambda: False)
        from project.inputs import generate_images

        splits = read_generated(generate_images, names)
    else:
        from library.dataset.unconverted import read_unconverted

        splits = read_unconverted(
            project.data_dir,
            names,
            project.data_format,
            project.csv_columns,
            project.label_separator or "",
        )
    _tell(splits, report)
    return splits


def _tell(splits, report):
    """Say what is to be known of splits that were not converted."""
    report(splits[0].describe())
    if joined := not splits[0].is_multi_label and find_joined(splits[0].classes):
        name, separator = joined
        report(
            f"the class {name!r} looks like several; in a CSV file --label_separator "
            f"{separator!r} divides it"
        )
    for split in splits:
        if split.rejected_count:
            count = counted(split.rejected_count, "file")
            report(f"{split.source}: left out, because they have no class: {count}")


def read_validation(project):
    """Return the validation split if a threshold or a temperature is to be fitted on it, or None.

    Raises DataError, SettingsError.
    """
    if None not in (project.threshold, project.threshold_precision):
        raise SettingsError("threshold and threshold_precision exclude each other")
    if project.calibrate or project.threshold_precision is not None:
        return read_data(project, "validation")[0]
    return None


def refuse_without_effect(project, command, *names):
    """Raise SettingsError for a setting that is given, but changes nothing of what a command does.

    `names` are of settings that are None or False unless they are given.
    """
    for name in names:
        value = getattr(project, name)
        if value is not None and value is not False:
            raise SettingsError(f"{name} has no effect on {command}: leave it out")


def find_validation(project):
    """Return the validation split, or None where there is none: only the temperature needs it."""
    try:
        (split,) = read_data(project, "validation")
    except DataError as error:
        print(f"no temperature without a validation split: {error}", file=sys.stderr)
        return None
    return split
