"""Every setting of project.yaml and hyperparameters.yaml: type, default and meaning in one line.

To add a setting, add a line here. It is then an option, a YAML key, and part of --help and
--print_config; `make docs` adds it to docs/settings.md and to the JSON schemas for editors.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
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
    FractionBelowOne,
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
    keys_of,
)

ABOUT = "Train an image classifier, keep the best snapshot, and use it."
# Where both YAML files are, in a clone of the project and where it is installed as a package.
HERE = Path(__file__).resolve().parents[1]
# Keys of hyperparameters.yaml that project.yaml may set too.
SHARED = ("model",)
# The setting that chooses among what a heading's settings describe.
CHOSEN_BY = {
    "Network": "model",
    "Loss": "loss",
    "Learning rate": "learning_rate_decay_type",
    "Optimizer": "optimizer",
}
EVAL_BATCH_SIZE = 32
HUB_HANDLE = "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4"


# What `--help` of a command shows; `--help all` shows every setting, as for a command that is not
# here.
_COMMON = "config_set data_dir run_dir"
_SNAPSHOT = f"{_COMMON} checkpoint ensemble tta"
SETTINGS_OF = {
    "train": f"{_COMMON} hyperparameter_set model image_size fit channels train_epochs batch_size "
    "learning_rate head_learning_rate optimizer augmentations best_metric early_stopping_patience "
    "resume xla dry_run print_config list_sets",
    "evaluate": f"{_SNAPSHOT} split top_k bootstrap_samples validation_name",
    "compare": "run_dir",
    "predict": f"{_SNAPSHOT} top_k predict_format embedding threshold threshold_precision "
    "calibrate",
    "export": f"{_SNAPSHOT} export_dir export_name export_formats embedding calibrate",
    "find_learning_rate": f"{_COMMON} hyperparameter_set model image_size channels batch_size "
    "optimizer augmentations xla",
    "describe": f"{_COMMON} hyperparameter_set model image_size channels",
    "explain": f"{_SNAPSHOT} split explain_images explain_neighbors explain_layer",
    "serve": f"{_SNAPSHOT} host port threshold threshold_precision calibrate max_upload_megabytes "
    "max_upload_secs max_megapixels max_waiting",
    "preview": f"{_COMMON} hyperparameter_set image_size channels batch_size augmentations",
    "benchmark_inputs": f"{_COMMON} data_format image_size batch_size augmentations cache "
    "parallel_interleave_sources num_parallel_reads num_parallel_calls prefetch_batches",
}


def _as_words(value: Any) -> Any:
    """Return `auto`, `none` or a mapping of classes to weights, as YAML has them, as words."""
    if isinstance(value, dict):
        return tuple(f"{name}={weight}" for name, weight in value.items())
    return () if value in ("none", None) else (value,) if isinstance(value, str) else value


MinusOneOrMore = Annotated[float, Field(ge=-1)]
ZeroOrLess = Annotated[float, Field(le=0)]
# The default of `fit`.
_FIT = "squeeze"
CropFraction = Annotated[float, Field(gt=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
# No JPEG is larger.
Edge = Annotated[int, Field(ge=1, le=65535)]
# TensorFlow starts as many, and aborts if the system refuses one.
Threads = Annotated[int, Field(ge=1, le=1024)]
Views = Annotated[int, Field(ge=1, le=12)]
ClassWeights = Annotated[
    Words,
    BeforeValidator(_as_words, json_schema_input_type=list[str] | str | dict[str, float] | None),
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
    return SettingsReader(program, Project, Hyperparameters, HERE, SHARED).read(arguments)


def is_in_effect(name: str, values: Mapping[str, str]) -> bool:
    """Return whether a setting matters beside others: `residual_layers` only to `residual`.

    The choices that a setting belongs to stand before the colon of its meaning.

    Args:
        name: The setting.
        values: Setting → value, as text.
    """
    for each in keys_of(Hyperparameters):
        choice = CHOSEN_BY.get(each.heading, "")
        if each.name == name and choice in values:
            choices, colon, _ = each.meaning.partition(": ")
            return not colon or values[choice] in (*choices.split(", "), "latest")
    return True


def keywords_of(function: Callable[..., Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a function names as keyword-only arguments.

    So a new network, optimizer or schedule names what it needs in its own signature, nowhere else.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: hyperparameters[name] for name in names}


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
    run_dir: LocalPath = key("out/current", "directory that the run writes everything into")
    model_dir: LocalPath | None = key(
        None, "directory of checkpoints", "md", "{run_dir}/checkpoints"
    )
    best_model_dir: LocalPath | None = key(
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
    steps_per_execution: Count32 = key(1, "training steps per tf.function call", "spe")
    random_seed: Seed = key(0, "seed of weights, data order and augmentation", "rs")
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
    checkpoint: LocalPath | None = key(
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
    report: bool = key(True, "write report.html after training")
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

    heading = "Checkpoints and TensorBoard"
    keep_checkpoint_max: Count = key(3, "maximum number of checkpoints to keep", "kcm")
    save_checkpoints_secs: Positive = key(600.0, "seconds between checkpoints", "scs")
    save_summary_steps: Count = key(100, "training steps between TensorBoard scalars", "sss")
    weight_histograms: bool = key(False, "write histograms of all weights at each evaluation")
    profile_steps: Words = key((), "first,last: steps to profile for TensorBoard")


class Prediction(Keys):
    """How to use the best snapshot."""

    heading = "Prediction and export"
    ensemble: LocalPaths = key((), "snapshots or runs to average; none: the best snapshot alone")
    tta: Views = key(1, "test-time augmentation: views per image (as it is, mirrored, then crops)")
    predict_format: Literal["csv", "jsonl"] = key("csv", "output format of predict")
    embedding: bool = key(
        False, "predict, export: also output each image's embedding (input of the last layer)"
    )
    threshold: Fraction | None = key(
        None, "predict, serve: probability below which the answer is 'unknown'"
    )
    threshold_precision: Fraction | None = key(
        None, "fit the threshold on the validation split, to this share of correct answers"
    )
    calibrate: bool = key(
        False, "predict, serve, export: use a temperature fitted on the validation split"
    )
    export_dir: LocalPath | None = key(None, "directory of exports", "ed", "{run_dir}/export")
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
    engine: Literal["loop", "fit"] = key(
        "loop", "train with the project's loop or with Keras's fit"
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


class Demonstration(Keys):
    """How to explain predictions and to serve the network."""

    heading = "Explaining and serving"
    explain_images: Count = key(8, "maximum number of images to explain")
    explain_neighbors: CountOrZero32 = key(6, "nearest training images to show per image; 0: none")
    explain_layer: Text | None = key(
        None, "layer for Grad-CAM; none: the last one with a spatial map"
    )
    host: Text = key("127.0.0.1", "address to bind; 0.0.0.0: reachable from other machines")
    port: Port = key(8000, "port to bind; 0: any free port")
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
    Demonstration,
    Runtime,
):
    """How to run (project.yaml)."""


class Network(Keys):
    """Which network to train."""

    heading = "Network"
    model: Text = key(
        "efficientnet_lite0",
        "network, one of project/networks, or latest; project.yaml may set it too",
        "m",
    )
    residual_layers: Literal[20, 32, 44, 56, 110] = key(56, "residual: number of layers")
    residual_dropout_rate: FractionBelowOne = key(0.0, "residual: dropout rate")
    application: Text = key("MobileNetV2", "application: model of keras.applications")
    application_weights: LocalPath | None = key(
        "imagenet", "application: initial weights: imagenet, a file, or none"
    )
    hub_handle: PathOrUrl = key(HUB_HANDLE, "hub: TF-Hub module: URL, directory, archive or gs://")
    hub_sha256: Text | None = key(None, "hub: required hash of the module, as describe prints it")
    preset: PathOrUrl = key(
        "dinov2_small", "preset: backbone of keras-hub: name, kaggle://, hf:// or directory"
    )
    dropout_rate: FractionBelowOne = key(0.5, "dropout rate; not of residual, which has its own")
    width: Count32 = key(32, "simple: filters of the first convolution; later ones have more")
    standardize_images: bool = key(
        False, "simple: standardize each image (residual always does, other networks refuse)"
    )
    head: Literal["auto", "softmax", "sigmoid", "multi_label"] = key(
        "auto", "output of the network; sigmoid needs exactly 2 classes"
    )


class Transfer(Keys):
    """Where training starts from, and what is trained."""

    heading = "Transfer learning"
    fine_tuning: bool = key(False, "train the pretrained layers too, not only the head")
    checkpoint_path: LocalPath | None = key(
        None, "initial weights: a snapshot, .keras, .weights.h5 or TensorFlow checkpoint"
    )
    checkpoint_exclude_scopes: Words = key((), "layers not to load from checkpoint_path")
    trainable_scopes: Words = key((), "train only layers whose names start with one of these")
    freeze: Words = key((), "layers to freeze; * matches anything, as in *_BN")
    unfreezing: Words = key((), "gradual unfreezing, epoch=top blocks to train, as in 3=2,6=all")
    cached_views: Count | None = key(
        None,
        "augmented views per image whose features are cached; none: 4, or one per epoch",
        also=["feature_views"],
    )
    layer_rate_decay: Fraction = key(1.0, "layer-wise learning-rate decay, per block")


class Loss(Keys):
    """The loss to minimize."""

    heading = "Loss"
    loss: Text = key("cross_entropy", "loss, one of project/objective.py")
    focal_gamma: PositiveOrZero = key(2.0, "focal: exponent; 0 is cross_entropy")
    focal_alpha: Fraction | None = key(
        None, "focal: multi-label: weight of an image's classes; 1 - focal_alpha of the others"
    )
    asymmetric_gamma_positive: PositiveOrZero = key(0.0, "asymmetric: exponent, image's classes")
    asymmetric_gamma_negative: PositiveOrZero = key(4.0, "asymmetric: exponent, other classes")
    asymmetric_clip: FractionBelowOne = key(
        0.05, "asymmetric: what is subtracted from the probability of the other classes"
    )
    poly_epsilon: MinusOneOrMore = key(2.0, "poly: weight of 1 - p; 0 is cross_entropy")
    logit_adjustment: PositiveOrZero = key(
        0.0,
        "cross_entropy, focal, poly: factor (tau) of the classes' log priors, which are added to "
        "the logits in the loss; 1 suits imbalanced classes",
    )


class LearningRate(Keys):
    """The learning rate and its schedule."""

    heading = "Learning rate"
    learning_rate: Positive = key(1e-3, "learning rate after warmup", "lr")
    head_learning_rate: Positive | None = key(
        None,
        "learning rate of the head; none: learning_rate, but at least 0.001 for a new head on a "
        "base that is fine-tuned",
    )
    learning_rate_batch_size: Count | None = key(
        None, "scale the learning rate by train_batch_size over this"
    )
    learning_rate_decay_type: Literal[
        "fixed", "exponential", "polynomial", "step", "cosine", "one_cycle"
    ] = key("cosine", "learning-rate schedule")
    warmup_epochs: PositiveOrZero = key(0.0, "epochs of linear warmup from 0")
    end_learning_rate: PositiveOrZero = key(0.0, "polynomial, cosine, one_cycle: final value")
    learning_rate_decay_power: Positive = key(1.0, "polynomial: power; 1 is linear")
    learning_rate_decay_factor: Positive = key(0.94, "exponential: decay rate")
    num_epochs_per_decay: Positive = key(2.0, "exponential: epochs per decay")
    learning_rate_steps: Words = key((), "step: epoch=factor, as in 30=0.1,45=0.01")
    plateau_patience: Count | None = key(
        None, "lower the learning rate after this many evaluations without improvement"
    )
    plateau_factor: FractionBelowOne = key(0.1, "factor of the learning rate on a plateau")


class Optimizer(Keys):
    """The optimizer and its hyperparameters."""

    heading = "Optimizer"
    optimizer: Text = key("adam", "optimizer, one of project/optimizers.py")
    weight_decay: PositiveOrZero = key(4e-5, "decoupled weight decay, of kernels only")
    clip_norm: Positive | None = key(None, "maximum global norm of the gradients")
    clip_value: Positive | None = key(None, "maximum absolute value of a gradient")
    gradient_accumulation_steps: Count32 = key(
        1, "steps whose gradients are averaged for one update", also=["replicas_to_aggregate"]
    )
    moving_average_decay: FractionBelowOne | None = key(
        None, "decay of the weights' exponential moving average (EMA), which is evaluated and saved"
    )
    momentum: FractionBelowOne = key(0.9, "momentum, muon: momentum")
    adam_beta1: FractionBelowOne = key(0.9, "adam, adamw, nadam, muon: decay of first moment")
    adam_beta2: FractionBelowOne = key(0.999, "adam, adamw, nadam, muon: decay of second moment")
    adam_epsilon: Positive = key(1e-8, "adam, adamw, nadam, muon: epsilon, for stability")
    opt_epsilon: Positive = key(1.0, "adadelta, rmsprop: epsilon, for numerical stability")
    adadelta_rho: FractionBelowOne = key(0.95, "adadelta: decay rate")
    adagrad_initial_accumulator_value: PositiveOrZero = key(0.1, "adagrad: initial accumulator")
    ftrl_learning_rate_power: ZeroOrLess = key(-0.5, "ftrl: power of the learning rate's decay")
    ftrl_initial_accumulator_value: PositiveOrZero = key(0.1, "ftrl: initial accumulator")
    ftrl_l1: PositiveOrZero = key(0.0, "ftrl: L1 regularization strength")
    ftrl_l2: PositiveOrZero = key(0.0, "ftrl: L2 regularization strength")
    lion_beta1: FractionBelowOne = key(0.9, "lion: share of the momentum in an update")
    lion_beta2: FractionBelowOne = key(0.99, "lion: decay of the momentum")
    rmsprop_momentum: FractionBelowOne = key(0.9, "rmsprop: momentum")
    rmsprop_decay: FractionBelowOne = key(0.9, "rmsprop: decay of the squared gradients")


class Regularization(Keys):
    """Regularization, augmentation and class balance."""

    heading = "Regularization and augmentation"
    l2_regularization: PositiveOrZero = key(1e-8, "weight of the kernels' L2 penalty in the loss")
    xentropy_label_smoothing: FractionBelowOne = key(
        0.0, "label smoothing", also=["label_smoothing"]
    )
    augmentations: Words = key((), "augmentations in order: name or name=strength")
    progressive: Words = key(
        (), "train on smaller images first: epoch=factor of the image size, as in 0=0.5,10=1"
    )
    class_weight: ClassWeights = key((), "class weights in the loss: auto, or class=weight")
    balance: Literal["none", "oversample"] = key("none", "repeat images of smaller classes")


class Hyperparameters(Network, Transfer, Loss, LearningRate, Optimizer, Regularization):
    """What to learn (hyperparameters.yaml)."""
