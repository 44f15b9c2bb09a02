"""What a search varies: ranges and choices that a set of hyperparameters.yaml has as values.

learning_rate: {log: [1e-4, 1e-2]}        uniform in the logarithm
dropout_rate: [0.0, 0.5]                  the same as {range: [0.0, 0.5]}
width: {range: [16, 64], step: 16}
optimizer: {choices: [adam, momentum]}
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from library.configuration.schema import Key
from library.errors import SettingsError
from library.messages import did_you_mean, shown

_RANGE, _LOG, _CHOICES, _STEP = "range", "log", "choices", "step"
_FORMS = "[low, high], {log: [low, high]}, {range: [low, high], step: x} or {choices: [a, b]}"


@dataclass(frozen=True)
class Domain:
    """The values of one setting among which to search: choices, or a range of numbers.

    Attributes:
        written: What the file says, as plain Python.
        choices: The choices; empty for a range.
        low: The smallest number, an int or a float as the setting has it.
        high: The largest number.
        step: Distance of the numbers; None: any number, or any integer of an int setting.
        is_log: Whether the logarithm is uniform.
    """

    written: Any
    choices: tuple[Any, ...] = ()
    low: Any = None
    high: Any = None
    step: Any = None
    is_log: bool = False

    @property
    def first(self) -> Any:
        """A value of the domain, which stands for it where one is needed."""
        return self.choices[0] if self.choices else self.low

    def expanded(self, key: Key, subject: str) -> "Domain":
        """Return the domain with ~ and variables expanded in choices of paths."""
        return replace(self, choices=tuple(key.expand(each, subject) for each in self.choices))

    def values(self) -> list[Any] | None:
        """Return all values, for a grid; None if there is no end of them."""
        if self.choices:
            return [*self.choices]
        step = 1 if self.step is None and isinstance(self.low, int) else self.step
        if step is None or self.is_log:
            return None
        return [
            self.low + number * step for number in range(round((self.high - self.low) / step) + 1)
        ]


def read_domain(key: Key, value: Any, subject: str) -> Domain | None:
    """Return the domain that a value of a set is, or None if it is a single value.

    Args:
        key: The setting.
        value: What the file says, as plain Python.
        subject: The setting and its place, with which a message starts.

    Raises:
        SettingsError: The domain is malformed, or the setting can't have one of its values.
    """
    is_number = key.base in (int, float) and not key.choices
    form = {_RANGE: value} if is_number and isinstance(value, list) else value
    # A setting of words may be a mapping of classes to numbers.
    is_words = key.base is tuple
    if not isinstance(form, Mapping) or (is_words and not isinstance(form.get(_CHOICES), list)):
        return None
    for name in form:
        if name not in (_RANGE, _LOG, _CHOICES, _STEP):
            hint = did_you_mean(name, (_RANGE, _LOG, _CHOICES, _STEP), f"to search, write {_FORMS}")
            raise SettingsError(f"{subject}: unknown key {shown(name)}{hint}")
    kinds = [name for name in (_RANGE, _LOG, _CHOICES) if name in form]
    items = form[kinds[0]] if len(kinds) == 1 else None
    is_wrong = _STEP in form and kinds != [_RANGE]
    if is_wrong or not isinstance(items, list) or not items:
        raise SettingsError(f"{subject}: to search, write {_FORMS}")
    checked = tuple(key.check(each, subject) for each in items)
    if kinds == [_CHOICES]:
        if repeated := [each for each in checked if checked.count(each) > 1]:
            raise SettingsError(f"{subject}: {shown(repeated[0])} is listed twice")
        return Domain(value, choices=checked)
    if not is_number:
        raise SettingsError(f"{subject} has no range: to search, write {{choices: [a, b]}}")
    if len(checked) != 2:
        raise SettingsError(f"{subject}: a range has two ends; list values as {{choices: [a, b]}}")
    return _read_range(Domain(value, (), *checked, form.get(_STEP), _LOG in kinds), subject)


def _read_range(domain: Domain, subject: str) -> Domain:
    """Return the range after checking its ends and its step."""
    low, high, step = domain.low, domain.high, domain.step
    if None in (low, high) or low >= high:
        raise SettingsError(
            f"{subject}: the range from {shown(low)} to {shown(high)} is empty; write [low, high]"
        )
    if domain.is_log and low <= 0:
        raise SettingsError(f"{subject}: log needs numbers greater than 0, not {shown(low)}")
    if step is not None:
        kind = int if isinstance(low, int) else (int, float)
        is_number = isinstance(step, kind) and not isinstance(step, bool) and step > 0
        count = (high - low) / step if is_number else 0
        if not is_number or round(count) < 1 or abs(count - round(count)) > 1e-6:
            raise SettingsError(
                f"{subject}: the step must divide the range from {shown(low)} to {shown(high)}, "
                f"not {shown(step)}"
            )
    return domain
