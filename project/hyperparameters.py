"""Every setting of hyperparameters.yaml: type, default and meaning in one line.

To add one, add a line here. project/settings.py has those of project.yaml.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from library.configuration.schema import (
    Count,
    Count32,
    Fraction,
    FractionBelowOne,
    Keys,
    LocalPath,
    PathOrUrl,
    Positive,
    PositiveOrZero,
    Text,
    Words,
    key,
    keys_of,
)

# The setting that chooses among what a heading's settings describe.
CHOSEN_BY = {
    "Network": "model",
    "Loss": "loss",
    "Learning rate": "learning_rate_decay_type",
    "Optimizer": "optimizer",
}
HUB_HANDLE = "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4"


def _as_words(value: Any) -> Any:
    """Return `auto`, `none` or a mapping of classes to weights, as YAML has them, as words."""
    if isinstance(value, dict):
        return tuple(f"{name}={weight}" for name, weight in value.items())
    return () if value in ("none", None) else (value,) if isinstance(value, str) else value


MinusOneOrMore = Annotated[float, Field(ge=-1)]
ZeroOrLess = Annotated[float, Field(le=0)]
ClassWeights = Annotated[
    Words,
    BeforeValidator(_as_words, json_schema_input_type=list[str] | str | dict[str, float] | None),
]


def keywords_of(function: Callable[..., Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a function names as keyword-only arguments.

    So a new network, optimizer or schedule names what it needs in its own signature, nowhere else.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: hyperparameters[name] for name in names}


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
    middle_features: bool = key(
        True,
        "efficientnet_lite0: the head gets averages of the middle layers too, not only the top",
    )
    dropout_rate: FractionBelowOne = key(0.5, "dropout rate; not of residual, which has its own")
    width: Count32 = key(32, "simple, resnet9: filters of the first block; later ones have more")
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
    checkpoint_path: PathOrUrl | None = key(
        None, "initial weights: a snapshot, .keras, .weights.h5 or TensorFlow checkpoint"
    )
    checkpoint_exclude_scopes: Words = key((), "layers not to load from checkpoint_path")
    trainable_scopes: Words = key((), "train only layers whose names start with one of these")
    freeze: Words = key((), "layers to freeze; * matches anything, as in *_BN")
    unfreezing: Words = key((), "gradual unfreezing, epoch=top blocks to train, as in 3=2,6=all")
    cached_views: Count | None = key(
        None,
        "augmented views per image whose features are cached; none: 2, or one per epoch",
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
    asymmetric_gamma_negative: PositiveOrZero = key(
        4.0,
        "asymmetric: exponent, other classes; of one class per image, with label smoothing only",
    )
    asymmetric_clip: FractionBelowOne = key(
        0.05,
        "asymmetric: multi-label: what is subtracted from the probability of the other classes",
    )
    poly_epsilon: MinusOneOrMore = key(2.0, "poly: weight of 1 - p; 0 is cross_entropy")
    logit_adjustment: PositiveOrZero = key(
        0.0,
        "asymmetric, cross_entropy, focal, poly: factor (tau) of the log priors of the classes, "
        "which are added to the logits in the loss; 1 suits imbalanced classes",
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
    nesterov: bool = key(False, "momentum: Nesterov's momentum")
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
