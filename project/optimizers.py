"""Optimizers by name: `--optimizer momentum`. Keras's own, each with its hyperparameters.

An optimizer is a function of the learning rate, of the hyperparameters that it names as keyword
arguments, and of `common`: what all of them share (clipping, weight decay, accumulation).
"""

from keras import optimizers

from library.errors import SettingsError
from library.messages import choose
from library.models.freezing import with_layer_rates
from project.keywords import keywords_of


def adadelta(rate, common, *, adadelta_rho, opt_epsilon):
    """Zeiler 2012 (arXiv 1212.5701)."""
    return optimizers.Adadelta(rate, rho=adadelta_rho, epsilon=opt_epsilon, **common)


def adagrad(rate, common, *, adagrad_initial_accumulator_value):
    """Duchi et al. 2011."""
    start = adagrad_initial_accumulator_value
    return optimizers.Adagrad(rate, initial_accumulator_value=start, **common)


def adam(rate, common, *, adam_beta1, adam_beta2, adam_epsilon):
    """Kingma and Ba 2014 (arXiv 1412.6980)."""
    return optimizers.Adam(
        rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common
    )


def adamw(rate, common, *, adam_beta1, adam_beta2, adam_epsilon):
    """Loshchilov and Hutter 2017 (arXiv 1711.05101): Adam with the decoupled `weight_decay`."""
    return optimizers.AdamW(
        rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common
    )


def ftrl(
    rate,
    common,
    *,
    ftrl_learning_rate_power,
    ftrl_initial_accumulator_value,
    ftrl_l1,
    ftrl_l2,
):
    """McMahan et al. 2013."""
    return optimizers.Ftrl(
        rate,
        learning_rate_power=ftrl_learning_rate_power,
        initial_accumulator_value=ftrl_initial_accumulator_value,
        l1_regularization_strength=ftrl_l1,
        l2_regularization_strength=ftrl_l2,
        **common,
    )


def lion(rate, common, *, lion_beta1, lion_beta2):
    """Chen et al. 2023 (arXiv 2302.06675): wants a tenth of Adam's learning rate."""
    return optimizers.Lion(rate, beta_1=lion_beta1, beta_2=lion_beta2, **common)


def momentum(rate, common, *, momentum):
    """Stochastic gradient descent with momentum."""
    return optimizers.SGD(rate, momentum=momentum, **common)


def muon(rate, common, *, momentum, adam_beta1, adam_beta2, adam_epsilon):
    """Jordan et al. 2024: orthogonal updates for kernels, Adam for the rest."""
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


def nadam(rate, common, *, adam_beta1, adam_beta2, adam_epsilon):
    """Dozat 2016: Adam with Nesterov's momentum."""
    return optimizers.Nadam(
        rate, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon, **common
    )


def rmsprop(rate, common, *, rmsprop_decay, rmsprop_momentum, opt_epsilon):
    """Tieleman and Hinton 2012."""
    return optimizers.RMSprop(
        rate, rho=rmsprop_decay, momentum=rmsprop_momentum, epsilon=opt_epsilon, **common
    )


def sgd(rate, common):
    """Stochastic gradient descent."""
    return optimizers.SGD(rate, **common)


def make_optimizer(
    name, rate, hyperparameters, weights, *, replicas=1, loss_scale=None, rate_factors=()
):
    """Return the optimizer called `name`, for the trainable `weights` of a network.

    `hyperparameters` is a dict. `loss_scale` is None (none), a number, or "dynamic".
    `rate_factors` are (variable, factor of its learning rate) pairs. Raises ChoiceError for an
    unknown name, SettingsError for two ways of clipping.
    """
    function = choose("optimizer", name, OPTIMIZERS)
    common = _common(hyperparameters, replicas)
    if isinstance(loss_scale, float):
        common["loss_scale_factor"] = loss_scale
    keywords = keywords_of(function, hyperparameters)
    if rate_factors:
        optimizer = with_layer_rates(function(0.0, common, **keywords), rate, rate_factors)
    else:
        optimizer = function(rate, common, **keywords)
    # Kernels only: pulling biases and normalization scales to zero helps nothing.
    optimizer.exclude_from_weight_decay([each for each in weights if len(each.shape) < 2])
    return optimizers.LossScaleOptimizer(optimizer) if loss_scale == "dynamic" else optimizer


def _common(hyperparameters, replicas):
    clip_norm, clip_value = hyperparameters["clip_norm"], hyperparameters["clip_value"]
    if clip_norm and clip_value:
        raise SettingsError("clip_norm and clip_value: at most one of them")
    accumulation = hyperparameters["gradient_accumulation_steps"]
    return {
        "weight_decay": hyperparameters["weight_decay"] or None,
        # Each replica passes its share of the summed gradients (library/training/steps.py).
        "global_clipnorm": clip_norm / replicas if clip_norm else None,
        "clipvalue": clip_value / replicas if clip_value else None,
        "gradient_accumulation_steps": accumulation if accumulation > 1 else None,
    }


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
