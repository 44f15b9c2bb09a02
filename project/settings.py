"""Every key of project.yaml and hyperparameters.yaml: type, range, default, one line of meaning.

To add a key, add one line here. It is then an option, a key in YAML, in --help, in --print_config
and in docs/settings.md (`python -m project.settings > docs/settings.md` writes that anew).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from library.configuration.command_line import Command
from library.configuration.output import reference
from library.configuration.reader import CommandLineOnly, Recipe, read_two_files
from library.configuration.schema import (
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    Keys,
    LocalPath,
    LocalPaths,
    Positive,
    PositiveOrZero,
    Text,
    Words,
    key,
)

PROGRAM = "run.py"
ABOUT = "Train an image classifier, keep its best snapshot, and use it."
# Where both files are, in the project's folder and where a package of it was installed.
HERE = Path(__file__).resolve().parents[1]


def _as_words(value):
    """Give `auto`, `none` or a mapping of class to weight, as YAML has them, as words."""
    if isinstance(value, dict):
        return tuple(f"{name}={weight}" for name, weight in value.items())
    return () if value in ("none", None) else (value,) if isinstance(value, str) else value


ZeroOrLess = Annotated[float, Field(le=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
ClassWeights = Annotated[Words, BeforeValidator(_as_words)]
# Keys of hyperparameters.yaml that project.yaml may have too, for sets of that which lack them.
IN_EITHER = ("model",)
HUB_HANDLE = "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4"


def read_settings(arguments: Sequence[str], commands: Mapping[str, Command] | None = None):
    """Return the Settings for a command line, a list of str without the program's name.

    Raises SettingsError, whose text is one line.
    """
    models = (Project, Hyperparameters)
    return read_two_files(*models, arguments, PROGRAM, ABOUT, commands or {}, HERE, IN_EITHER)


class Folders(Keys):
    """Folders"""

    data_dir: Text = key("dataset", "folder or URL of the splits train, validation, test", "dd")
    run_dir: LocalPath = key("out/current", "folder that a run writes everything into")
    model_dir: LocalPath | None = key(None, "folder of checkpoints", "md", "{run_dir}/checkpoints")
    best_model_dir: LocalPath | None = key(
        None, "folder of the best snapshot", "bmd", "{run_dir}/best"
    )


class Schedule(Keys):
    """Schedule"""

    train_epochs: Count = key(30, "passes over the training images", "te")
    max_train_steps: Count | None = key(
        None, "stop training after so many steps in all", "mts", also=["train_steps"]
    )
    max_minutes: Positive | None = key(
        None, "time to train; the schedule fits itself to it, its warm-up does not"
    )
    batch_size: Count = key(128, "images a step, over all devices", "bs")
    train_batch_size: Count | None = key(None, "images a training step", "tbs", "{batch_size}")
    eval_batch_size: Count | None = key(None, "images an evaluation step", "ebs", "{batch_size}")
    steps_per_execution: Count = key(1, "steps that TensorFlow makes in one call", "spe")
    random_seed: CountOrZero = key(0, "seed of weights, order and augmentation", "rs")
    resume: Literal["auto", "never", "must"] = key("auto", "go on: if it can, no, or fail")


class Evaluation(Keys):
    """Evaluation, the best, early stopping"""

    epochs_between_evals: Count = key(1, "training epochs between two validations", "ebe")
    steps_between_evals: Count | None = key(None, "validate by steps instead of epochs", "sbe")
    eval_throttle_secs: PositiveOrZero | None = key(None, "validate by seconds instead of epochs")
    max_eval_steps: Count | None = key(
        None, "evaluate on no more than so many batches", "mes", also=["eval_freq"]
    )
    checkpoint: LocalPath | None = key(
        None,
        "network to use: a snapshot, run or checkpoint; none: the best",
        "vc",
        also=["validation_checkpoint"],
    )
    split: Literal["train", "validation", "test"] = key("test", "split to evaluate on")
    validate_only: bool = key(
        False, "do not train: evaluate on the validation split", also=["validate"]
    )
    validation_name: LocalPath | None = key(None, "name of the files that evaluate writes", "vn")
    top_k: Count = key(5, "likeliest classes: top-k accuracy counts, and predict tells, so many")
    bootstrap_samples: CountOrZero = key(1000, "resamples for an interval of each measure; 0: none")
    report: bool = key(True, "write report.html when training is done")
    best_metric: Text = key("loss", "validation metric that tells which snapshot is best")
    best_metric_mode: Literal["min", "max"] | None = key(
        None, "whether less or more of it is better; none: as the metric has it"
    )
    early_stopping_patience: Count | None = key(None, "evaluations without a better one to stop at")
    early_stopping_min_delta: PositiveOrZero = key(0.0, "what is less than this better is not")
    stop_threshold: Fraction | None = key(None, "validation accuracy to stop at")


class Saving(Keys):
    """Saving"""

    keep_checkpoint_max: Count = key(3, "checkpoints to keep, the newest ones", "kcm")
    save_checkpoints_secs: Positive = key(600.0, "seconds between two checkpoints", "scs")
    save_summary_steps: Count = key(100, "steps between two TensorBoard scalars", "sss")
    weight_histograms: bool = key(False, "show all weights' distributions at each evaluation")
    profile_steps: Words = key((), "first,last: record what these steps do, for TensorBoard")


class Prediction(Keys):
    """Prediction and export"""

    ensemble: LocalPaths = key(
        (), "snapshots or runs whose probabilities are averaged; none: the best"
    )
    tta: Annotated[int, Field(ge=1, le=12)] = key(
        1, "views of an image to average: it, its mirror image, then crops"
    )
    predict_format: Literal["csv", "jsonl"] = key("csv", "what predict prints: a table, or JSON")
    embedding: bool = key(
        False, "predict, export: tell of each image, too, what the last layer takes: a vector"
    )
    threshold: Fraction | None = key(
        None, "predict, serve: probability below which the answer is: unknown"
    )
    threshold_precision: Fraction | None = key(
        None, "fit the threshold on validation, so that this share of answers is right"
    )
    calibrate: bool = key(False, "predict, serve, export: with a temperature fitted on validation")
    export_dir: LocalPath | None = key(None, "folder of exports", "ed", "{run_dir}/export")
    export_name: Text = key("model", "what the exported model is called: a folder in export_dir")
    export_formats: Words = key(
        ("saved_model",), "of saved_model, litert, litert_float16, litert_int8, onnx"
    )


class Pipeline(Keys):
    """Input pipeline"""

    image_size: Count = key(224, "height of the images that the network sees, in pixels")
    image_width: Count | None = key(
        None, "their width in pixels; images are squeezed into it", follows="{image_size}"
    )
    channels: Literal[1, 3] = key(3, "1 for gray, 3 for color")
    data_format: Literal["tfrecord", "folder", "csv", "generator"] = key(
        "tfrecord", "what is in data_dir; all but tfrecord are read as they are, slower"
    )
    csv_columns: Words = key((), "a CSV file's columns of set, file and label, if not so called")
    label_separator: Text | None = key(
        None, "what divides a CSV cell of several classes, as | in cat|dog; empty cells: none"
    )
    cache: Literal["none", "memory", "disk"] = key("none", "where to keep what was read or decoded")
    cache_features: Literal["auto", "never"] = key(
        "auto",
        "cache the features of a frozen base in cache_dir, so that it runs once per image",
        also=["keep_features"],
    )
    cache_dir: LocalPath | None = key(None, "folder of the cache on disk", "", "{run_dir}/cache")
    shuffle_examples: Count = key(10_000, "examples to draw the next one from; encoded, not pixels")
    shuffle_bytes: Count = key(2**30, "no more examples to draw from than fit into this")
    parallel_interleave_sources: Count = key(
        16, "shards whose examples are mixed; part of the order", "pis"
    )
    deterministic: bool = key(True, "same order each time; without, faster and not repeatable")
    shard_by_file: bool = key(False, "each worker reads its own shards only: less reading")
    num_parallel_reads: Count = key(4, "shards read at once", "npr")
    num_parallel_calls: Count | None = key(None, "images prepared at once; none: 4 a core", "npc")
    prefetch_examples: CountOrZero = key(0, "encoded examples read ahead of decoding", "pre")
    prefetch_batches: CountOrZero = key(4, "batches prepared ahead of the device", "pb")
    prefetch_to_device: CountOrZero = key(1, "batches copied ahead to the GPU", "ptd")


class Runtime(Keys):
    """Runtime"""

    xla: bool = key(False, "compile the training step whole with XLA")
    dtype: Literal["float32", "float16", "bfloat16"] = key(
        "float32", "what layers compute in; weights stay float32", "dt"
    )
    loss_scale: Positive | None = key(None, "fixed loss scale for float16; none: found by itself")
    deterministic_ops: bool = key(False, "only operations that repeat to the bit; slower on GPUs")
    debug: bool = key(False, "learn one batch by heart, each number checked; fails if it can't")
    engine: Literal["loop", "fit"] = key("loop", "what trains: the project's loop or Keras's fit")
    num_gpus: CountOrZero | None = key(None, "GPUs to use on each machine; none: all; 0: the CPU")
    gpu_growth: bool = key(False, "take a GPU's memory as needed, not all of it at the start")
    intra_op_threads: Count | None = key(None, "threads that one operation may use; none: all")
    inter_op_threads: Count | None = key(None, "operations that may run at once; none: tuned")
    synchronized_batch_norm: bool = key(False, "normalize over all devices' images, not each one's")
    worker_wait_secs: Positive = key(300.0, "time that other workers have to appear at the start")
    verbose: bool = key(False, "log more, and show the traceback of an error")


class Looking(Keys):
    """Explaining and serving"""

    explain_images: Count = key(8, "images to explain, of those named or of the split")
    explain_neighbors: CountOrZero = key(6, "nearest training images of each; 0: seek none")
    explain_layer: Text | None = key(
        None, "layer whose maps Grad-CAM weighs; none: the last one that has any"
    )
    host: Text = key("127.0.0.1", "address to serve on; 0.0.0.0: for other machines too")
    port: Port = key(8000, "port to serve on; 0: a free one")
    max_upload_megabytes: Positive = key(20.0, "largest upload that is read")
    max_upload_secs: Positive = key(30.0, "time that an upload may take")
    max_megapixels: Positive = key(50.0, "largest image that is decoded while serving")
    max_waiting: CountOrZero = key(16, "pictures that may wait for the network; more are refused")


class Project(
    Recipe, Folders, Schedule, Evaluation, Saving, Prediction, Pipeline, Looking, Runtime
):
    """How to run: folders, batch sizes, epochs, machines (project.yaml)."""


class Network(Keys):
    """Network"""

    model: Text = key(
        "simple", "network, one of project/networks; project.yaml may say it where no set does", "m"
    )
    residual_layers: Literal[20, 32, 44, 56, 110] = key(56, "depth of the network residual")
    residual_dropout_rate: FractionBelowOne = key(0.0, "residual: share of the features dropped")
    application: Text = key("MobileNetV2", "network application: its name in keras.applications")
    application_weights: LocalPath | None = key(
        "imagenet", "its weights: imagenet, a file, or none"
    )
    hub_handle: Text = key(HUB_HANDLE, "module of the network hub: URL, folder, archive, gs://")
    hub_sha256: Text | None = key(None, "hash that the module must have; describe tells it")
    dropout_rate: FractionBelowOne = key(
        0.5, "share of the features dropped while training; residual has its own"
    )
    width: Count = key(32, "simple: kernels of its first convolution; later ones have more")
    standardize_images: bool = key(
        False, "simple: each image to mean 0, deviation 1; residual always does, others refuse"
    )
    head: Literal["auto", "softmax", "sigmoid", "multi_label"] = key(
        "auto", "a score a class; sigmoid: one for two classes; multi_label: several an image"
    )


class Transfer(Keys):
    """Pretrained weights"""

    fine_tuning: bool = key(False, "train the pretrained layers too, not the head alone")
    checkpoint_path: LocalPath | None = key(
        None, "weights to begin with: a snapshot, .keras, .weights.h5 or TensorFlow checkpoint"
    )
    checkpoint_exclude_scopes: Words = key((), "layers whose weights in it are left out")
    trainable_scopes: Words = key((), "the only layers to train, by the beginnings of names")
    freeze: Words = key((), "layers not to train; * stands for anything, as in *_BN")
    unfreezing: Words = key((), "epoch=blocks: how many top blocks to train from it on: 3=2,6=all")
    cached_views: Count | None = key(
        None,
        "number of augmented views per image whose features are cached",
        also=["feature_views"],
    )
    layer_rate_decay: Fraction = key(1.0, "factor of the learning rate from block to block below")


class LearningRate(Keys):
    """Learning rate"""

    learning_rate: Positive = key(1e-3, "learning rate, after the warm-up", "lr")
    learning_rate_batch_size: Count | None = key(
        None, "batch size it is meant for: scaled by train_batch_size over this"
    )
    learning_rate_decay_type: Literal[
        "fixed", "exponential", "polynomial", "step", "cosine", "one_cycle"
    ] = key("cosine", "its course over the training")
    warmup_epochs: PositiveOrZero = key(0.0, "epochs in which it rises from 0")
    end_learning_rate: PositiveOrZero = key(0.0, "where polynomial, cosine and one_cycle end")
    learning_rate_decay_power: Positive = key(1.0, "polynomial: 1 is a straight line")
    learning_rate_decay_factor: Positive = key(0.94, "exponential: factor of each fall")
    num_epochs_per_decay: Positive = key(2.0, "exponential: epochs between two falls")
    learning_rate_steps: Words = key((), "step: epoch=factor, such as 30=0.1,45=0.01")
    plateau_patience: Count | None = key(None, "evaluations without a better one to fall at")
    plateau_factor: FractionBelowOne = key(0.1, "factor of the fall on a plateau")


class Optimizer(Keys):
    """Optimizer"""

    optimizer: Text = key("adam", "name of the optimizer, one of project/optimizers.py")
    weight_decay: PositiveOrZero = key(4e-5, "decoupled from the loss; kernels only")
    clip_norm: Positive | None = key(None, "largest norm of all gradients together")
    clip_value: Positive | None = key(None, "largest size of one gradient")
    gradient_accumulation_steps: Count = key(
        1, "steps whose gradients make one update", also=["replicas_to_aggregate"]
    )
    moving_average_decay: FractionBelowOne | None = key(
        None, "evaluate and keep averages of the weights, decaying so"
    )
    momentum: FractionBelowOne = key(0.9, "momentum and muon: decay of the sum of gradients")
    adam_beta1: FractionBelowOne = key(0.9, "adam and kin: decay of the mean of gradients")
    adam_beta2: FractionBelowOne = key(0.999, "adam and kin: decay of the mean of their squares")
    adam_epsilon: Positive = key(1e-8, "adam and kin: keeps from dividing by zero")
    opt_epsilon: Positive = key(1.0, "adadelta and rmsprop: keeps from dividing by zero")
    adadelta_rho: FractionBelowOne = key(0.95, "decay of its averages")
    adagrad_initial_accumulator_value: PositiveOrZero = key(0.1, "where its sum of squares begins")
    ftrl_learning_rate_power: ZeroOrLess = key(-0.5, "power of its sum of squares")
    ftrl_initial_accumulator_value: PositiveOrZero = key(0.1, "where its sum of squares begins")
    ftrl_l1: PositiveOrZero = key(0.0, "its L1 regularization")
    ftrl_l2: PositiveOrZero = key(0.0, "its L2 regularization")
    lion_beta1: FractionBelowOne = key(0.9, "share of the old direction in an update")
    lion_beta2: FractionBelowOne = key(0.99, "decay of the direction")
    rmsprop_momentum: FractionBelowOne = key(0.9, "decay of the sum of updates")
    rmsprop_decay: FractionBelowOne = key(0.9, "decay of the mean of squares")


class Regularization(Keys):
    """Regularization and augmentation"""

    l2_regularization: PositiveOrZero = key(1e-8, "weight of the squared kernels in the loss")
    xentropy_label_smoothing: FractionBelowOne = key(
        0.0, "share of a label spread over all classes", also=["label_smoothing"]
    )
    augmentations: Words = key((), "names, or name=strength, in the order in which to apply them")
    class_weight: ClassWeights = key((), "auto, or class=weight each: what a class's loss counts")
    balance: Literal["none", "oversample"] = key("none", "repeat images of smaller classes")


class Hyperparameters(Network, Transfer, LearningRate, Optimizer, Regularization):
    """What to learn: network, rates, regularization, augmentation (hyperparameters.yaml)."""


COMMAND = "python -m project.settings > docs/settings.md"


def settings_reference():
    """Return the text of docs/settings.md."""
    parts = (
        ("On the command line only", CommandLineOnly),
        ("project.yaml: how to run", Project),
        ("hyperparameters.yaml: what to learn", Hyperparameters),
    )
    return reference(COMMAND, parts)


if __name__ == "__main__":
    print(settings_reference(), end="")
