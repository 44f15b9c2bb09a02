"""Every setting of project.yaml: type, default and meaning in one line.

Those of hyperparameters.yaml are in project/hyperparameters.py.

To add a setting, add a line here. It is then an option, a YAML key, and part of --help and
--print_config; `make docs` adds it to docs/settings.md and to the JSON schemas for editors.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from library.configuration.command_line import Commands, Program, program_name
from library.configuration.reader import Recipe, Settings, SettingsReader
from library.configuration.schema import (
    Count,
    Count32,
    CountOrZero,
    CountOrZero32,
    Files,
    Fraction,
    Keys,
    LocalPath,
    LocalPaths,
    PathOrUrl,
    Positive,
    PositiveOrZero,
    Seed,
    Text,
    Words,
    key,
)
from library.dataset.storage import read_url
from project.hyperparameters import Hyperparameters

ABOUT = "Train an image classifier, keep the best snapshot, and use it."
# Where both YAML files are, in a clone of the project and where it is installed as a package.
HERE = Path(__file__).resolve().parents[1]
# Keys of hyperparameters.yaml that project.yaml may set too.
SHARED = ("model",)
EVAL_BATCH_SIZE = 32
# What `--slices` alone stands for.
PROPERTIES = "properties"


# What `--help` of a command shows; `--help all` shows every setting, as for a command that is not
# here.
_COMMON = "config_set data_dir run_dir"
_SNAPSHOT = f"{_COMMON} checkpoint ensemble tta"
SETTINGS_OF = {
    "train": f"{_COMMON} hyperparameter_set model image_size fit channels train_epochs batch_size "
    "learning_rate head_learning_rate optimizer augmentations best_metric early_stopping_patience "
    "seeds resume xla dry_run print_config list_sets",
    "cross_validate": f"{_COMMON} fold hyperparameter_set model image_size fit channels "
    "train_epochs batch_size learning_rate optimizer augmentations best_metric "
    "early_stopping_patience bootstrap_samples seeds resume xla dry_run print_config list_sets",
    "search": f"{_COMMON} hyperparameter_set trials sampler pruner objectives storage write_set "
    "seeds model image_size channels train_epochs batch_size best_metric early_stopping_patience "
    "random_seed dry_run print_config list_sets",
    "evaluate": f"{_SNAPSHOT} fold split slices corruptions top_k bootstrap_samples "
    "validation_name seeds",
    "compare": "run_dir sort_by compare_format",
    "track": "run_dir",
    "predict": f"{_SNAPSHOT} top_k predict_format embedding threshold threshold_precision "
    "calibrate unknown_rate unknown_score engine beam_options predict_dir predict_shards",
    "export": f"{_SNAPSHOT} export_dir export_name export_formats embedding calibrate "
    "unknown_rate unknown_score",
    "clean": f"{_SNAPSHOT} split count",
    "select": f"{_SNAPSHOT} count select_format",
    "find_learning_rate": f"{_COMMON} hyperparameter_set model image_size channels batch_size "
    "optimizer augmentations xla",
    "describe": f"{_COMMON} hyperparameter_set model image_size channels",
    "explain": f"{_SNAPSHOT} split explain_images explain_neighbors explain_layer",
    "serve": f"{_SNAPSHOT} host port clean threshold threshold_precision calibrate unknown_rate "
    "unknown_score max_upload_megabytes max_upload_secs max_megapixels max_waiting",
    "preview": f"{_COMMON} hyperparameter_set image_size channels batch_size augmentations",
    "benchmark_inputs": f"{_COMMON} data_format image_size batch_size augmentations cache "
    "parallel_interleave_sources num_parallel_reads num_parallel_calls prefetch_batches",
    "profile": f"{_COMMON} hyperparameter_set model image_size train_epochs batch_size "
    "steps_per_execution augmentations cache dtype num_gpus xla compare_format",
    "doctor": f"{_COMMON} hyperparameter_set model image_size batch_size num_gpus compare_format",
}


# The default of `fit`.
_FIT = "squeeze"
CropFraction = Annotated[float, Field(gt=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
# No JPEG is larger.
Edge = Annotated[int, Field(ge=1, le=65535)]
# TensorFlow starts as many, and aborts if the system refuses one.
Threads = Annotated[int, Field(ge=1, le=1024)]
Views = Annotated[int, Field(ge=1, le=12)]


def _read_seeds(value: Any) -> Any:
    """Return seeds as integers, which are words on the command line. Raise ValueError."""
    words = [value] if isinstance(value, int) and not isinstance(value, bool) else value
    seeds = [int(each) if str(each).isdecimal() else each for each in words or ()]
    if wrong := [each for each in seeds if type(each) is not int or each >= 2**32]:
        raise ValueError(f"must be integers from 0 to {2**32 - 1}, as in 0,1,2, not {wrong[0]!r}")
    if len({*seeds}) < len(seeds):
        raise ValueError(f"must differ from each other, not {', '.join(map(str, seeds))}")
    return seeds


Seeds = Annotated[
    tuple[Seed, ...],
    Field(strict=False, max_length=1000),
    BeforeValidator(_read_seeds, json_schema_input_type=list[Seed]),
]


def read_settings(arguments: Sequence[str], commands: Commands | None = None) -> Settings:
    """Return the Settings of a command line.

    Args:
        arguments: The words after the program's name.
        commands: The commands by name, the default first.

    Raises:
        SettingsError: With one line about what is wrong.
    """
    commands = {
        name: replace(each, settings=tuple(SETTINGS_OF.get(name, "").split()))
        for name, each in (commands or {}).items()
    }
    program = Program(program_name("run", "run.py"), ABOUT, commands, HERE)
    reader = SettingsReader(program, Project, Hyperparameters, HERE, SHARED, read_url)
    return reader.read(arguments)


class Directories(Keys):
    """Where data is read and results are written."""

    heading = "Directories"
    data_dir: PathOrUrl = key(
        "dataset", "directory or URL of the train, validation and test splits", "dd"
    )
    train_metadata: Files = key(
        (), "instead of data_dir: a CSV file, or TFRecord files of any program, to train on"
    )
    eval_metadata: Files = key((), "the same to validate on; beside train_metadata")
    fold: Count | None = key(
        None, "validate on this fold of data_dir, from 1, and train on the others (--split folds=5)"
    )
    run_dir: PathOrUrl = key("out/current", "directory or URL that the run writes everything into")
    model_dir: PathOrUrl | None = key(
        None, "directory of checkpoints", "md", "{run_dir}/checkpoints"
    )
    best_model_dir: PathOrUrl | None = key(
        None, "directory of the best snapshot", "bmd", "{run_dir}/best"
    )


class Training(Keys):
    """How long to train, and on how many images at once."""

    heading = "Training"
    train_epochs: Count = key(30, "number of training epochs", "te")
    train_steps: Count | None = key(None, "number of training steps, instead of train_epochs")
    max_train_steps: Count | None = key(
        None, "maximum number of training steps", "mts", "{train_steps}"
    )
    max_minutes: Positive | None = key(
        None, "time budget in minutes; shortens the learning-rate schedule, not the warmup"
    )
    batch_size: Count32 | None = key(
        None,
        "global batch size; none: 32, or less for few images",
        "bs",
    )
    train_batch_size: Count32 | None = key(None, "batch size for training", "tbs", "{batch_size}")
    eval_batch_size: Count32 | None = key(None, "batch size for evaluation", "ebs", "{batch_size}")
    steps_per_execution: Count32 = key(
        1, "training steps per tf.function call; by default 30 on cached features", "spe"
    )
    random_seed: Seed = key(0, "seed of weights, data order and augmentation", "rs")
    seeds: Seeds = key(
        (),
        "train, cross_validate, evaluate: once for each of these seeds, in run_dir/seed_0 and so "
        "on; report mean, deviation and interval; search: each trial",
    )
    resume: Literal["auto", "never", "must"] = key(
        "auto", "auto: resume if there is a checkpoint; never: start over; must: fail without one"
    )

    @model_validator(mode="after")
    def _set_eval_batch_size(self) -> Self:
        if self.eval_batch_size is None:
            # Frozen for everyone else; here the model is still being made.
            self.__dict__["eval_batch_size"] = self.batch_size or EVAL_BATCH_SIZE
        return self

    @model_validator(mode="before")
    @classmethod
    def _check_steps(cls, values: Any) -> Any:
        # With the one, epochs end a training too, and with the other they do not.
        if None not in (values.get("train_steps"), values.get("max_train_steps")):
            raise ValueError(
                "max_train_steps is given twice, by --train_steps and --max_train_steps; give one"
            )
        return values


class Evaluation(Keys):
    """When to evaluate, which snapshot is the best, when to stop."""

    heading = "Evaluation and early stopping"
    epochs_between_evals: Count = key(1, "training epochs between evaluations", "ebe")
    steps_between_evals: Count | None = key(
        None, "training steps between evaluations, instead of epochs", "sbe"
    )
    eval_throttle_secs: PositiveOrZero | None = key(
        None, "seconds between evaluations, instead of epochs"
    )
    max_eval_steps: Count | None = key(
        None, "evaluate on at most this many batches", "mes", also=["eval_freq"]
    )
    checkpoint: PathOrUrl | None = key(
        None,
        "snapshot, run or checkpoint to use; none: the best snapshot",
        "vc",
        also=["validation_checkpoint"],
    )
    split: Literal["train", "validation", "test"] = key("test", "split to evaluate or explain")
    validate_only: bool = key(
        False, "evaluate on the validation split instead of training", also=["validate"]
    )
    validation_name: LocalPath | None = key(None, "name of the files that evaluate writes", "vn")
    top_k: Count32 = key(5, "number of classes for top-k accuracy and for predict's answer")
    bootstrap_samples: CountOrZero32 = key(
        1000, "bootstrap resamples for each metric's confidence interval; 0: no intervals"
    )
    slices: LocalPath | None = key(
        None,
        "evaluate: metrics by image properties, such as size, and by the columns of a CSV file if "
        "one is given, with a column 'file'",
        bare=PROPERTIES,
    )
    corruptions: bool = key(
        False, "evaluate: accuracy under noise, blur, JPEG, brightness and contrast, 25 times"
    )
    report: bool = key(True, "write report.html after training")
    sort_by: Text | None = key(
        None,
        "compare: metric to sort runs and to compare groups by, such as macro_f1, test accuracy, "
        "time or parameters; none: best_metric, or accuracy",
    )
    compare_format: Literal["text", "csv", "md", "json"] = key(
        "text", "output of compare; profile, doctor: text or json", also=["format"]
    )
    best_metric: Text = key(
        "loss",
        "validation metric that selects the best snapshot: loss, accuracy, exact_match, macro_f1, "
        "balanced_accuracy, macro_roc_auc, macro_pr_auc, recall:CLASS, precision:CLASS; the lower "
        "loss breaks a tie",
    )
    best_metric_mode: Literal["min", "max"] | None = key(
        None, "direction of improvement; none: the metric's usual direction"
    )
    early_stopping_patience: Count | None = key(
        None, "stop after this many evaluations without improvement"
    )
    early_stopping_min_delta: PositiveOrZero = key(
        0.0, "smallest change of best_metric that counts as an improvement"
    )
    stop_threshold: Fraction | None = key(None, "stop when validation accuracy reaches this value")


class Saving(Keys):
    """What to save while training."""

    heading = "Checkpoints, TensorBoard and trackers"
    keep_checkpoint_max: Count = key(3, "maximum number of checkpoints to keep", "kcm")
    save_checkpoints_secs: Positive = key(600.0, "seconds between checkpoints", "scs")
    save_summary_steps: Count = key(100, "training steps between TensorBoard scalars", "sss")
    upload_wait_secs: PositiveOrZero = key(
        600.0, "seconds that the end of a run at a URL waits for a store that does not answer"
    )
    weight_histograms: bool = key(False, "write histograms of all weights at each evaluation")
    profile_steps: Words = key((), "first,last: steps to profile for TensorBoard")
    trackers: Words = key(
        (), "experiment trackers to report to, beside TensorBoard: any of jsonl, mlflow, wandb"
    )
    tracker_snapshot: bool = key(False, "upload the best snapshot to the trackers at the end")


class Prediction(Keys):
    """How to use the best snapshot."""

    heading = "Prediction and export"
    ensemble: LocalPaths = key((), "snapshots or runs to average; none: the best snapshot alone")
    tta: Annotated[int, Field(ge=1, le=12)] = key(
        1, "test-time augmentation: views per image (as it is, mirrored, then crops)"
    )
    predict_format: Literal["csv", "jsonl"] = key("csv", "output format of predict")
    predict_dir: PathOrUrl | None = key(
        None, "directory or URL of predict's results, with engine beam", "", "{run_dir}/predictions"
    )
    predict_shards: Annotated[int, Field(ge=1, le=99_999)] = key(
        8, "number of files in predict_dir"
    )
    embedding: bool = key(
        False, "predict, export: also output each image's embedding (input of the last layer)"
    )
    threshold: Fraction | None = key(
        None, "predict, serve: probability below which the answer is 'unknown'"
    )
    threshold_precision: Fraction | None = key(
        None, "fit the threshold on the validation split, to this share of correct answers"
    )
    unknown_rate: Fraction | None = key(
        None,
        "predict, serve, export: answer 'unknown' to images unlike the training images, and to at "
        "most this share of the validation images",
    )
    unknown_score: Literal["neighbors", "energy"] = key(
        "neighbors", "what unknown_rate goes by: the nearest training images, or the logits' energy"
    )
    calibrate: bool = key(
        False, "predict, serve, export: use a temperature fitted on the validation split"
    )
    select_format: Literal["csv", "label_studio"] = key(
        "csv", "output of select: CSV, or tasks for Label Studio (JSON)"
    )
    export_dir: PathOrUrl | None = key(None, "directory of exports", "ed", "{run_dir}/export")
    export_name: Text = key("model", "name of the exported model, a directory in export_dir")
    export_formats: Words = key(
        ("saved_model",), "any of saved_model, litert, litert_float16, litert_int8, onnx"
    )


class Pipeline(Keys):
    """How images are read, decoded and batched."""

    heading = "Input pipeline"
    image_size: Edge = key(
        224, "height of the network's input, in pixels; with preset, by default its own"
    )
    image_width: Edge | None = key(
        None, "width of the network's input, if not square", follows="{image_size}"
    )
    fit: Literal["squeeze", "crop", "pad"] = key(
        _FIT, "how images of another aspect ratio become the network's input"
    )
    crop_fraction: CropFraction | None = key(
        None, "fit crop: share of the edges of the largest centered window to keep; none: 1"
    )
    channels: Literal[1, 3] = key(3, "1: grayscale; 3: RGB")
    data_format: Literal["tfrecord", "folder", "csv", "generator"] = key(
        "tfrecord", "format of data_dir; all but tfrecord are slower"
    )
    csv_columns: Words = key(
        (), "CSV columns of set, file and label, or of file and label; none: SET, FILE, LABEL"
    )
    label_separator: Text | None = key(
        None, "separator of the labels in a CSV cell (multi-label), as | in cat|dog"
    )
    stream_gigabytes: Positive | None = key(
        None,
        "data_dir at a URL: download shards shortly before they are read, into a cache of at most "
        "this size; none: all of them at the start",
    )
    class_order: Literal["code_point", "natural"] = key(
        "code_point", "order of the classes of data that is not converted; natural: by number"
    )
    multi_label: bool = key(False, "train_metadata: records may have several classes, or none")
    tfrecord_fields: Words = key(
        (), "train_metadata: fields of the records, such as image=img,label=y,text=none"
    )
    cache: Literal["none", "memory", "disk"] = key(
        "none", "where to cache the images that were read"
    )
    cache_features: Literal["auto", "never"] = key(
        "auto",
        "cache the features of a frozen base, so that it runs once per image",
        also=["keep_features"],
    )
    cache_dir: LocalPath | None = key(None, "directory of disk caches", "", "{run_dir}/cache")
    augment_on_device: bool = key(
        False, "augment whole batches on the GPU (flips, colors and coordinates), not on the CPU"
    )
    shuffle_examples: Count32 = key(10_000, "size of the shuffle buffer, in (encoded) examples")
    shuffle_bytes: Count = key(2**30, "maximum size of the shuffle buffer, in bytes")
    parallel_interleave_sources: Count32 = key(
        16, "number of shards to interleave; changes the order of examples", "pis"
    )
    deterministic: bool = key(True, "same order of examples each time; slightly slower")
    shard_by_file: bool = key(False, "let each worker read only its own shards")
    num_parallel_reads: Count32 = key(4, "number of shards to read in parallel", "npr")
    num_parallel_calls: Count32 | None = key(
        None, "number of images to process in parallel; none: 4 per core", "npc"
    )
    prefetch_examples: CountOrZero32 = key(0, "encoded examples to prefetch before decoding", "pre")
    prefetch_batches: CountOrZero32 = key(4, "batches to prefetch", "pb")
    prefetch_to_device: CountOrZero32 = key(1, "batches to prefetch to the GPU", "ptd")

    @model_validator(mode="before")
    @classmethod
    def _check_fit(cls, values: Any) -> Any:
        if values.get("crop_fraction") is not None and values.get("fit", _FIT) != "crop":
            raise ValueError("crop_fraction needs --fit crop")
        return values


class Runtime(Keys):
    """How TensorFlow runs."""

    heading = "Runtime"
    xla: bool = key(False, "compile the training step with XLA")
    dtype: Literal["float32", "float16", "bfloat16"] = key(
        "float32", "compute dtype of layers; weights stay float32", "dt"
    )
    loss_scale: Positive | None = key(None, "fixed loss scale for float16; none: dynamic")
    deterministic_ops: bool = key(False, "use deterministic ops (slower on GPUs)")
    debug: bool = key(False, "overfit one batch with numeric checks on; fail if it is not learned")
    engine: Literal["loop", "fit", "beam"] = key(
        "loop", "train: the project's loop or Keras's fit; predict: beam, for Apache Beam"
    )
    beam_options: Text | None = key(
        None,
        "engine beam: Beam's options, such as '--runner=DataflowRunner …'; none: run here",
        takes_options=True,
    )
    num_gpus: CountOrZero | None = key(None, "GPUs to use per machine; none: all; 0: CPU only")
    gpu_growth: bool = key(False, "allocate GPU memory as needed, not all of it at the start")
    intra_op_threads: Threads | None = key(
        None, "threads within one op; none: one per core", also=["intra_op_parallelism_threads"]
    )
    inter_op_threads: Threads | None = key(
        None, "ops to run in parallel; none: automatic", also=["inter_op_parallelism_threads"]
    )
    sync_replicas: bool = key(
        True, "accepted for compatibility: training on several devices is always synchronous"
    )
    synchronized_batch_norm: bool = key(False, "synchronize batch statistics across devices")
    worker_wait_secs: Positive = key(300.0, "seconds to wait for other workers at the start")
    verbose: bool = key(False, "log more, and show the traceback of an error")


class Search(Keys):
    """How to search for hyperparameters."""

    heading = "Hyperparameter search"
    trials: Count = key(40, "search: number of trials in all, of all workers together")
    sampler: Literal["tpe", "random", "grid", "cmaes"] = key(
        "tpe", "search: how to choose what a trial tries"
    )
    pruner: Literal["median", "hyperband", "none"] = key(
        "median", "search: how to decide which trials to end early, by their validation metric"
    )
    objectives: Words = key(
        (),
        "search: what to optimize: a validation metric, or two of such metrics, parameters and "
        "milliseconds (per image); none: best_metric",
    )
    storage: PathOrUrl | None = key(
        None,
        "search: journal file on a shared disk, or URL of a database, such as "
        "postgresql+psycopg://user@host/name; none: a journal in run_dir",
    )
    write_set: Text | None = key(
        None, "search: add the best hyperparameters to hyperparameter_file as a set of this name"
    )


class Demonstration(Keys):
    """How to explain predictions and to serve the network."""

    heading = "Explaining and serving"
    explain_images: Count = key(8, "maximum number of images to explain")
    explain_neighbors: CountOrZero32 = key(6, "nearest training images to show per image; 0: none")
    explain_layer: Text | None = key(
        None, "layer for Grad-CAM; none: the last one with a spatial map"
    )
    count: Count32 = key(
        200, "clean: maximum number of images to show, the worst first; select: to label next"
    )
    host: Text = key("127.0.0.1", "address to bind; 0.0.0.0: reachable from other machines")
    port: Port = key(8000, "port to bind; 0: any free port")
    clean: bool = key(False, "serve: the page to correct the labels that clean suspects")
    max_upload_megabytes: Positive = key(
        20.0, "maximum size of an upload, in megabytes; ten times that for all at once"
    )
    max_upload_secs: Positive = key(30.0, "maximum duration of an upload, in seconds")
    max_megapixels: Positive = key(50.0, "maximum size of an uploaded image, in megapixels")
    max_waiting: CountOrZero = key(64, "maximum number of waiting requests; more are rejected")


class Project(
    Recipe,
    Directories,
    Training,
    Evaluation,
    Saving,
    Prediction,
    Pipeline,
    Search,
    Demonstration,
    Runtime,
):
    """How to run (project.yaml)."""
