"""Hyperparameters reach a function by the names of its keyword-only arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def keywords_of(function: Callable[..., Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a function names as keyword-only arguments.

    So a new network, optimizer or schedule names what it needs in its own signature, nowhere else.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: hyperparameters[name] for name in names}
