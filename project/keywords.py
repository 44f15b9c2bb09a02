"""Hyperparameters reach a function by the names of its keyword-only arguments."""

import inspect


def keywords_of(function, hyperparameters):
    """Return those of the hyperparameters (a dict) that `function` names as keyword-only arguments.

    So a new network, optimizer or schedule says what it needs in its own signature, nowhere else.
    """
    parameters = inspect.signature(function).parameters.values()
    wanted = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: hyperparameters[name] for name in wanted}
