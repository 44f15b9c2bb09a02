"""Every key of project.yaml and hyperparameters.yaml: type, range, default, one line of meaning.

To add a key, add one line here. It is then an option, a key in YAML, in --help, in --print_config
and in docs/settings.md (`python -m project.settings > docs/settings.md` writes that anew).
"""

from typing import Literal

from library.configuration.command_line import Command
from library.configuration.keys import (
    Count,
    CountOrZero,
    FractionBelowOne,
    Keys,
    Positive,
    PositiveOrZero,
    Text,
    Words,
    key,
)
from library.configuration.reference import reference
from library.configuration.two_files import CommandLineOnly, Recipe, read_two_files

PROGRAM = "run.py"
ABOUT = "Train an image classifier, keep its best snapshot, and use it."
# The first one is what run.py does when no command is given.
COMMANDS = (
    Command("train", "train and keep the best snapshot; go on where an earlier run stopped"),
    Command("evaluate", "measure the best snapshot on the test split"),
)

HUB_HANDLE = "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4"


def read_settings(arguments):
    """Give the Settings for a command line, a list of str without the program's name.

    Raises SettingsError, whose text is one line.
    """
    return read_two_files(Project, Hyperparameters, arguments, PROGRAM, ABOUT, COMMANDS)


class Folders(Keys):
    """Folders"""

    data_dir: Text = key("dataset", "folder of the converted splits: train, validation, test", "dd")
    run_dir: Text = key("out/current", "folder that a run writes everything into")
    model_dir: Text | None = key(None, "folder of checkpoints", "md", "{run_dir}/checkpoints")
    best_model_dir: Text | None = key(None, "folder of the best snapshot", "bmd", "{run_dir}/best")


class Schedule(Keys):
    """Schedule"""

    train_epochs: Count = key(30, "passes over the training images", "te")
    epochs_between_evals: Count = key(1, "training epochs between two validations", "ebe")
    batch_size: Count = key(128, "images a step, over all devices", "bs")
    train_batch_size: Count | None = key(None, "images a training step", "tbs", "{batch_size}")
    eval_batch_size: Count | None = key(None, "images an evaluation step", "ebs", "{batch_size}")
    max_train_steps: Count | None = key(None, "stop training after so many steps in all", "mts")
    max_eval_steps: Count | None = key(None, "evaluate on no more than so many batches", "mes")
    random_seed: CountOrZero = key(0, "seed of weights, order and augmentation", "rs")
    resume: Literal["auto", "never", "must"] = key("auto", "go on: if it can, no, or fail")


class Saving(Keys):
    """Saving"""

    keep_checkpoint_max: Count = key(3, "checkpoints to keep, the newest ones", "kcm")
    save_checkpoints_secs: Positive = key(600.0, "seconds between two checkpoints", "scs")
    save_summary_steps: Count = key(100, "steps between two TensorBoard scalars", "sss")


class Pipeline(Keys):
    """Input pipeline"""

    image_size: Count = key(224, "edge of the square images that the network sees, in pixels")
    channels: Literal[1, 3] = key(3, "1 for grey, 3 for colour")
    shuffle_examples: Count = key(10_000, "examples to draw the next one from; encoded, not pixels")
    num_parallel_reads: Count = key(4, "shards read at once", "npr")
    num_parallel_calls: Count | None = key(None, "images decoded at once; none: tuned", "npc")
    prefetch_batches: CountOrZero = key(2, "batches prepared ahead of the device", "pb")


class Runtime(Keys):
    """Runtime"""

    xla: bool = key(False, "compile the training step whole with XLA")
    verbose: bool = key(False, "log more, and show the traceback of an error")


class Project(Recipe, Folders, Schedule, Saving, Pipeline, Runtime):
    """How to run: folders, batch sizes, epochs, machines (project.yaml)."""


class Network(Keys):
    """Network"""

    model: Text = key("simple", "name of the network, one of project/networks", "m")
    hub_handle: Text = key(HUB_HANDLE, "module of the network hub: URL, folder, archive, gs://")
    hub_sha256: Text | None = key(None, "hash that the module must have; describe tells it")
    fine_tuning: bool = key(False, "train the pretrained layers too, not the head alone")
    dropout_rate: FractionBelowOne = key(0.5, "share of the features dropped while training")


class Optimiser(Keys):
    """Optimiser"""

    learning_rate: Positive = key(1e-3, "step size of Adam, after the warm-up", "lr")
    learning_rate_decay_type: Literal["fixed", "cosine"] = key("cosine", "course of the step size")
    end_learning_rate: PositiveOrZero = key(0.0, "step size at the end of the cosine")
    warmup_epochs: CountOrZero = key(0, "epochs in which the step size rises from 0")
    adam_beta1: FractionBelowOne = key(0.9, "decay of Adam's mean of gradients")
    adam_beta2: FractionBelowOne = key(0.999, "decay of Adam's mean of squared gradients")
    adam_epsilon: Positive = key(1e-8, "keeps Adam from dividing by zero")


class Regularisation(Keys):
    """Regularisation and augmentation"""

    l2_regularization: PositiveOrZero = key(1e-8, "weight of the squared kernels in the loss")
    xentropy_label_smoothing: FractionBelowOne = key(
        0.0, "share of a label spread over all classes"
    )
    augmentations: Words = key((), "names, or name=strength, in the order in which to apply them")


class Hyperparameters(Network, Optimiser, Regularisation):
    """What to learn: network, rates, regularisation, augmentation (hyperparameters.yaml)."""


COMMAND = "python -m project.settings > docs/settings.md"


def settings_reference():
    """Give the text of docs/settings.md."""
    parts = (
        ("On the command line only", CommandLineOnly),
        ("project.yaml: how to run", Project),
        ("hyperparameters.yaml: what to learn", Hyperparameters),
    )
    return reference(COMMAND, parts)


if __name__ == "__main__":
    print(settings_reference(), end="")
