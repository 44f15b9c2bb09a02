"""Optimizers by name: `--optimizer momentum`. Keras's own, each with its hyperparameters.

To add one, write a function and put it in OPTIMIZERS. Its arguments are the learning rate (a float
or a schedule), the options common to all optimizers (clipping, weight decay, accumulation), and as
keyword-only arguments the hyperparameters that it needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import optimizers

from library.errors import SettingsError
from library.messages import choose
from library.models.freezing import with_layer_rates
from library.training.adam import Adam, AdamW
from project.hyperparameters import keywords_of

Options = Mapping[str, Any]


def adadelta(
    rate: Any, common: Options, *, adadelta_rho: float, opt_epsilon: float
) -> keras.Optimizer:
    """Zeiler 2012 (arXiv 1212.5701)."""
    return optimizers.Adadelta(rate, rho=adadelta_rho, epsilon=opt_epsilon, **common)


def adagrad(
    rate: Any, common: Options, *, adagrad_initial_accumulator_value: float
) -> keras.Optimizer:
    """Duchi et al. 2011."""
    start = adagrad_initial_accumulator_value
    return optimizers.Adagrad(rate, initial_accumulator_value=start, **common)


def adam(
    rate: Any, common: Options, *, adam_beta1: float, adam_beta2: float, adam_epsilon: float
) -> keras.Optimizer:
    """Kingma and Ba 2014 (arXiv 1412.6980)."""
    return Adam(rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common)


def adamw(
    rate: Any, common: Options, *, adam_beta1: float, adam_beta2: float, adam_epsilon: float
) -> keras.Optimizer:
    """Loshchilov and Hutter 2017 (arXiv 1711.05101): Adam with the decoupled `weight_decay`."""
    return AdamW(rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common)


def ftrl(
    rate: Any,
    common: Options,
    *,
    ftrl_learning_rate_power: float,
    ftrl_initial_accumulator_value: float,
    ftrl_l1: float,
    ftrl_l2: float,
) -> keras.Optimizer:
    """McMahan et al. 2013."""
    return optimizers.Ftrl(
        rate,
        learning_rate_power=ftrl_learning_rate_power,
        initial_accumulator_value=ftrl_initial_accumulator_value,
        l1_regularization_strength=ftrl_l1,
        l2_regularization_strength=ftrl_l2,
        **common,
    )


def lion(rate: Any, common: Options, *, lion_beta1: float, lion_beta2: float) -> keras.Optimizer:
    """Chen et al. 2023 (arXiv 2302.06675): needs about a tenth of Adam's learning rate."""
    return optimizers.Lion(rate, beta_1=lion_beta1, beta_2=lion_beta2, **common)


def momentum(rate: Any, common: Options, *, momentum: float, nesterov: bool) -> keras.Optimizer:
    """Stochastic gradient descent with momentum."""
    return optimizers.SGD(rate, momentum=momentum, nesterov=nesterov, **common)


def muon(
    rate: Any,
    common: Options,
    *,
    momentum: float,
    adam_beta1: float,
    adam_beta2: float,
    adam_epsilon: float,
) -> keras.Optimizer:
    """Jordan et al. 2024: orthogonal updates for matrices, AdamW for the rest.

    Keras counts as matrices the kernels of dense layers, not those of convolutions.
    """
    return optimizers.Muon(
        rate,
        momentum=momentum,
        adam_beta_1=adam_beta1,
        adam_beta_2=adam_beta2,
        # Else Keras takes its own for the weights that it gives to Adam.
        adam_weight_decay=common["weight_decay"],
        epsilon=adam_epsilon,
        **common,
    )


def nadam(
    rate: Any, common: Options, *, adam_beta1: float, adam_beta2: float, adam_epsilon: float
) -> keras.Optimizer:
    """Dozat 2016: Adam with Nesterov's momentum."""
    return optimizers.Nadam(
        rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common
    )


def rmsprop(
    rate: Any, common: Options, *, rmsprop_decay: float, rmsprop_momentum: float, opt_epsilon: float
) -> keras.Optimizer:
    """Tieleman and Hinton 2012."""
    return optimizers.RMSprop(
        rate, rho=rmsprop_decay, momentum=rmsprop_momentum, epsilon=opt_epsilon, **common
    )


def sgd(rate: Any, common: Options) -> keras.Optimizer:
    """Stochastic gradient descent."""
    return optimizers.SGD(rate, **common)


@dataclass(frozen=True)
class OptimizerOptions:
    """What an optimizer has to know about the training beside its hyperparameters."""

    replicas: int = 1
    # For float16: a factor of the loss, or one that adapts; None: no scaling.
    loss_scale: float | Literal["dynamic"] | None = None
    # (variable, factor of its learning rate); other variables have the factor 1.
    rate_factors: Sequence[tuple[keras.Variable, float]] = ()


def make_optimizer(
    name: str,
    rate: Any,
    hyperparameters: Mapping[str, Any],
    weights: Sequence[keras.Variable],
    options: OptimizerOptions = OptimizerOptions(),
) -> keras.Optimizer:
    """Return the optimizer called `name`.

    Args:
        name: One of OPTIMIZERS.
        rate: The learning rate, a float or a schedule.
        hyperparameters: The values of all hyperparameters.
        weights: The trainable weights of the network.
        options: What it has to know about the training.

    Raises:
        ChoiceError: The name is unknown.
        SettingsError: Both ways of clipping are asked for.
    """
    function = choose("optimizer", name, OPTIMIZERS)
    common = _common_options(hyperparameters, options)
    keywords = keywords_of(function, hyperparameters)
    if options.rate_factors:
        optimizer = with_layer_rates(function(0.0, common, **keywords), rate, options.rate_factors)
    else:
        optimizer = function(rate, common, **keywords)
    # Kernels only: decaying biases and normalization scales helps nothing.
    optimizer.exclude_from_weight_decay([each for each in weights if len(each.shape) < 2])
    if options.loss_scale == "dynamic":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _common_options(hyperparameters: Mapping[str, Any], options: OptimizerOptions) -> Options:
    clip_norm, clip_value = hyperparameters["clip_norm"], hyperparameters["clip_value"]
    if clip_norm and clip_value:
        raise SettingsError("clip_norm and clip_value exclude each other")
    accumulation, replicas = hyperparameters["gradient_accumulation_steps"], options.replicas
    common = {
        "weight_decay": hyperparameters["weight_decay"] or None,
        # Each replica passes its share of the summed gradients (library/training/steps.py).
        "global_clipnorm": clip_norm / replicas if clip_norm else None,
        "clipvalue": clip_value / replicas if clip_value else None,
        "gradient_accumulation_steps": accumulation if accumulation > 1 else None,
    }
    if isinstance(options.loss_scale, float):
        common["loss_scale_factor"] = options.loss_scale
    return common


OPTIMIZERS = {
    function.__name__: function
    for function in (
        adadelta,
        adagrad,
        adam,
        adamw,
        ftrl,
        lion,
        momentum,
        muon,
        nadam,
        rmsprop,
        sgd,
    )
}
