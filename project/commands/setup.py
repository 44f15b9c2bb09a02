"""What most commands start with: TensorFlow, imported late and quietly, and the splits."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.configuration.command_line import Command
from library.configuration.output import read_resolved
from library.configuration.reader import Settings
from library.configuration.schema import COMMAND_LINE, Value, keys_of
from library.dataset.folds import find_folds, read_fold_splits
from library.dataset.sources.find import split_folder
from library.dataset.splits import find_joined, read_splits
from library.dataset.storage import is_remote
from library.errors import DataError, SettingsError
from library.files import current_folder
from library.messages import counted
from library.tensorflow_import import import_tensorflow
from project.hyperparameters import Hyperparameters
from project.settings import Project, read_settings

logger = logging.getLogger(__name__)

# Settings that choose files, not what is in them.
_WHICH = ("config_file", "config_set", "hyperparameter_file", "hyperparameter_set", "run_dir")


def start_tensorflow(config: Project, cluster: Any = None) -> None:
    """Import TensorFlow and start the devices that the settings choose.

    Args:
        config: The settings of project.yaml.
        cluster: The cluster that this process belongs to, if any. Its workers start their devices
            together, later.
    """

    def choose() -> bool:
        _choose_devices(config)
        return cluster is None

    import_tensorflow(config.verbose, choose)


def _choose_devices(config: Project) -> None:
    """Configure the devices of TensorFlow, before it starts them. Raise SettingsError."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if config.num_gpus is not None:
        if config.num_gpus > len(gpus):
            raise SettingsError(f"num_gpus {config.num_gpus}: this machine has {len(gpus)}")
        gpus = gpus[: config.num_gpus]
        tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus if config.gpu_growth else ():
        tf.config.experimental.set_memory_growth(gpu, True)
    if config.intra_op_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(config.intra_op_threads)
    if config.inter_op_threads is not None:
        tf.config.threading.set_inter_op_parallelism_threads(config.inter_op_threads)


def for_data(config: Project) -> Project:
    """Return settings for `read_data`, if csv_columns may be meant for a command's paths."""
    return config if config.data_format == "csv" else config.model_copy(update={"csv_columns": ()})


def read_data(config: Project, *names: str) -> Sequence[Any]:
    """Return the named splits, converted or not, in order.

    Raises:
        DataError: If data is missing or invalid.
        SettingsError: If settings contradict each other.
    """
    if config.fold and (config.data_format != "tfrecord" or config.train_metadata):
        raise SettingsError("fold needs converted data: convert_dataset.py --split folds=5")
    is_converted = config.data_format == "tfrecord" and not config.train_metadata
    if config.stream_gigabytes and not (is_converted and is_remote(config.data_dir)):
        raise SettingsError(
            "stream_gigabytes needs a data_dir at a URL (gs://, s3://, https://) with converted "
            f"shards; leave it out for {data_name(config)}"
        )
    if config.train_metadata or config.eval_metadata:
        return read_metadata(config, *names)
    if config.data_format != "csv" and (config.csv_columns or config.label_separator):
        raise SettingsError(
            "csv_columns and label_separator are for data_format csv; to convert a CSV file, give "
            "them to convert_dataset.py"
        )
    if config.data_format == "tfrecord":
        return _read_converted(config, names)
    splits: Sequence[Any]
    if config.data_format == "generator":
        from library.dataset.unconverted import read_generated

        import_tensorflow(config.verbose, lambda: False)
        from project.inputs import generate_images

        splits = read_generated(generate_images, names, config.class_order)
    else:
        from library.dataset.sources.find import SourceOptions
        from library.dataset.unconverted import read_unconverted

        options = SourceOptions(
            columns=config.csv_columns, label_separator=config.label_separator or ""
        )
        splits = read_unconverted(
            config.data_dir, names, config.data_format, options, config.class_order
        )
    _log_unconverted(splits)
    return splits


def _read_converted(config: Project, names: Sequence[str]) -> Sequence[Any]:
    """Return converted splits; with `fold`, the training and the validation split are of folds."""
    fetch = config.stream_gigabytes is None
    if not config.fold:
        if "test" not in names and find_folds(config.data_dir):
            folder = Path(split_folder(config.data_dir, names[0]))
            if not folder.is_dir():
                raise DataError(
                    f"{config.data_dir} has folds, and no split {names[0]}: cross_validate trains "
                    "on all of them, and --fold 1 chooses one to validate on"
                )
        splits = read_splits(config.data_dir, *names, fetch=fetch)
    else:
        folds = read_fold_splits(config.data_dir, config.fold, fetch)
        splits = [
            folds.get(name) or read_splits(config.data_dir, name, fetch=fetch)[0] for name in names
        ]
    if not fetch:
        _stream(config, splits)
    return splits


def _stream(config: Project, splits: Sequence[Any]) -> None:
    """Download the shards of splits while they are read. Raise UserError."""
    try:
        from library.streaming.splits import register_splits
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.streaming"):
            raise
        raise SettingsError(f"stream_gigabytes needs {error.name}, which was deleted") from None
    assert config.stream_gigabytes is not None
    register_splits(splits, config.stream_gigabytes, config.parallel_interleave_sources)


def follow_fold(settings: Settings) -> Settings:
    """Return the settings with the fold of the run in run_dir, or with the run of the fold given.

    For commands that use a run: of a cross-validation, `--fold 2` is the run in <run_dir>/fold_2.
    """
    config, new = settings.project, {}
    recorded = read_resolved(Path(config.run_dir, "project.yaml"))
    run = Path(config.run_dir, f"fold_{config.fold}")
    if config.fold and (run / "project.yaml").is_file():
        new["run_dir"] = Value(str(run), "fold")
    elif config.fold is None and recorded.get("fold"):
        own, given = (Path(each).resolve() for each in (recorded["data_dir"], config.data_dir))
        if own == given:
            new["fold"] = Value(recorded["fold"], f"the run in {config.run_dir}")
    return settings.with_values(new) if new else settings


def data_paths(settings: Mapping[str, Any]) -> list[str]:
    """Return where the data is, from settings by name: metadata files, or else data_dir."""
    names = ("train_metadata", "eval_metadata")
    metadata = [each for name in names for each in settings.get(name) or ()]
    return metadata or [str(settings["data_dir"])]


def data_name(config: Project) -> str:
    """Return what to call the data in reports."""
    first, *others = data_paths(vars(config))
    return first + (f" and {counted(len(others), 'more file')}" if others else "")


def read_metadata(config: Project, *names: str) -> Sequence[Any]:
    """Return the named splits that train_metadata and eval_metadata name, in order.

    Raises:
        DataError: If data is missing or invalid.
        SettingsError: If one of them is missing, or cannot give a split.
    """
    metadata = {"train": config.train_metadata, "validation": config.eval_metadata}
    wanted = {"train", *names}
    if "test" in wanted:
        raise SettingsError(
            "split test: train_metadata and eval_metadata are train and validation; choose --split "
            "validation, or name the files to evaluate as --eval_metadata"
        )
    for name, option in (("train", "train_metadata"), ("validation", "eval_metadata")):
        if name in wanted and not metadata[name]:
            raise SettingsError(f"{option} is missing: the files of the split {name}")
    from library.dataset.foreign_splits import read_foreign_splits
    from library.dataset.sources.find import SourceOptions

    options = SourceOptions(
        columns=config.csv_columns,
        label_separator=config.label_separator or "",
        tfrecord_fields=config.tfrecord_fields,
        is_multi_label=config.multi_label,
    )
    chosen = {name: metadata[name] for name in metadata if name in wanted}
    splits = read_foreign_splits(chosen, options, config.class_order)
    for name in names:
        logger.info(splits[name].describe())
    return [splits[name] for name in names]


def _log_unconverted(splits):
    """Log what a conversion would have reported."""
    logger.info(splits[0].describe())
    if joined := not splits[0].is_multi_label and find_joined(splits[0].classes):
        name, separator = joined
        logger.warning(
            f"the class {name!r} looks like several classes; if it is, split it with "
            f"--label_separator {separator!r} in a CSV file"
        )
    for split in splits:
        if split.rejected_count:
            count = counted(split.rejected_count, "file")
            logger.warning(f"{split.source}: skipped {count} without a class")


def read_validation(config: Project) -> Any:
    """Return the validation split if a threshold or a temperature is to be fitted, else None.

    Raises:
        DataError: If the split is needed and missing or invalid.
        SettingsError: If settings contradict each other.
    """
    if None not in (config.threshold, config.threshold_precision):
        raise SettingsError("threshold and threshold_precision exclude each other")
    if config.calibrate or config.threshold_precision is not None:
        return read_data(config, "validation")[0]
    return None


def find_validation(config: Project) -> Any:
    """Return the validation split, or None if there is none: only the temperature needs it."""
    try:
        return read_data(config, "validation")[0]
    except DataError as error:
        logger.warning(f"no temperature without a validation split: {error}")
        return None


def print_result(result: Mapping[str, Any]) -> None:
    """Print a command's result as one line of JSON on stdout, unless that is a terminal.

    A person finds the same in the log and in the files that the command writes.
    """
    if not sys.stdout.isatty():
        print(json.dumps(result, allow_nan=False))


def refuse_without_effect(config: Project, command: str, *names: str) -> None:
    """Raise SettingsError if a setting is given that has no effect on a command.

    Args:
        config: The settings of project.yaml.
        command: The command's name.
        *names: Settings that are None or False by default.
    """
    for name in names:
        value = getattr(config, name)
        # Compared by identity, because a threshold of 0 equals False.
        if value is not None and value is not False:
            raise SettingsError(f"{name} has no effect on {command}: leave it out")


def follow_run(settings: Settings) -> tuple[Settings, Path]:
    """Return the settings of the run in run_dir, if it has a snapshot, and a folder for pictures.

    Options of the command line stay in force. Where they make another network or other inputs, the
    pictures of these do not go into the run.
    """
    run_dir, best = Path(settings.project.run_dir), current_folder(settings.project.best_model_dir)
    files = best / "project.yaml", best / "hyperparameters.yaml"
    if not all(each.is_file() for each in files):
        return settings, run_dir
    words = [settings.command, "--config_file", str(files[0]), "--hyperparameter_file"]
    words += [str(files[1]), f"--run_dir={run_dir}"]
    keys = (*keys_of(Project), *keys_of(Hyperparameters))
    values = {each.name: settings.values[each.name] for each in keys if each.name not in _WHICH}
    given = [
        f"--{each.name}={_as_word(each.escape(values[each.name].value))}"
        for each in keys
        if each.name in values and values[each.name].provenance == COMMAND_LINE
    ]
    commands = {settings.command: Command("")}
    try:
        recorded, followed = (read_settings([*words, *more], commands) for more in ((), given))
    except SettingsError as error:
        logger.warning(f"not with the settings of the run in {run_dir}: {error}")
        return settings, run_dir.with_name(f"{run_dir.name}-preview")
    if followed.project.checkpoint or _what_is_seen(followed) != _what_is_seen(recorded):
        return followed, run_dir.with_name(f"{run_dir.name}-preview")
    logger.info(f"with the settings of the run in {run_dir}; for others, choose another --run_dir")
    return followed, run_dir


def _as_word(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _what_is_seen(settings: Settings) -> tuple:
    """Return what a picture of the network or of its inputs depends on."""
    config = settings.project
    shape = config.image_size, config.image_width, config.channels
    return settings.hyperparameters, shape, config.random_seed
