"""What a key is: its type, range, default and meaning, declared in one line of a model."""

import types
import typing
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from library.choices import nearest
from library.errors import SettingsError

# No silent conversion: the text "3" is no number, 1.0 is no whole number, NaN is nothing at all.
STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

# The types that settings are made of. A list is given as a list or, on the command line, by commas.
Text = typing.Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Words = typing.Annotated[tuple[Text, ...], Field(strict=False)]
Count = typing.Annotated[int, Field(ge=1)]
CountOrZero = typing.Annotated[int, Field(ge=0)]
Positive = typing.Annotated[float, Field(gt=0)]
PositiveOrZero = typing.Annotated[float, Field(ge=0)]
Fraction = typing.Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = typing.Annotated[float, Field(ge=0, lt=1)]


def key(default, meaning, short="", follows=""):
    """Declare one key of a Keys model.

    `short` is its short option, without the dash. `follows` says what stands for None:
    "{batch_size}" the value of that key, "{run_dir}/best" a text made of it.
    """
    extra = {"short": short, "follows": follows}
    return Field(default, description=meaning, json_schema_extra=extra)


class Keys(BaseModel):
    """A frozen group of settings. Where a key follows another, its None is replaced by that.

    The first line of a subclass's docstring is the heading of its keys in --help. A model of
    several groups inherits from them all.
    """

    model_config = STRICT

    @model_validator(mode="after")
    def _follow(self):
        for each in keys_of(type(self)):
            if each.follows and getattr(self, each.name) is None:
                # The model is frozen for everyone else; here it is still being made.
                self.__dict__[each.name] = each.followed(self)
        return self


@dataclass(frozen=True)
class Key:
    """One key of a Keys model, as --help, YAML and the command line need it."""

    name: str
    default: object
    meaning: str
    group: str
    short: str
    follows: str
    base: type
    choices: tuple
    limits: dict
    is_optional: bool
    adapter: TypeAdapter

    @property
    def is_flag(self):
        """Whether the option stands without a value: --name, --no_name."""
        return self.base is bool

    @property
    def expected(self):
        """Say which values are right, to follow the words 'must be'."""
        words = _kind_in_words(self.base, self.choices) + _limits_in_words(self.limits)
        return words + (", or none" if self.is_optional else "")

    def followed(self, model):
        """Give what stands for None in `model`, where this key follows another one."""
        if self.follows.startswith("{") and self.follows.endswith("}"):
            return getattr(model, self.follows[1:-1])
        return self.follows.format_map(vars(model))

    def check(self, value, where=""):
        """Give the value as the model holds it. Raises SettingsError with the words `where`."""
        if self.is_optional and isinstance(value, str) and value.lower() == "none":
            return None  # What people write for "none of it", in YAML and on the command line.
        try:
            checked = self.adapter.validate_python(value)
        except ValidationError as error:
            raise SettingsError(self._complaint(value, where, error)) from None
        # pydantic takes 1.0 and true for the choice 1.
        if self.choices and not any(_same(value, each) for each in (*self.choices, None)):
            raise SettingsError(self._complaint(value, where))
        return checked

    def _complaint(self, value, where, error=None):
        near = nearest(value, self.choices) if self.choices and isinstance(value, str) else None
        hint = f"; did you mean {near!r}?" if near else ""
        own = _own_words(error)
        expected = own or f"must be {self.expected}"
        return f"{self.name}{where} {expected}, not {shown(value)}{hint}"


def _same(value, other):
    return type(value) is type(other) and value == other


def _own_words(error):
    """Give the text of a ValueError raised by a check of the project's own, if that is the error."""
    for detail in error.errors() if error else ():
        if detail["type"] == "value_error":
            return str(detail["ctx"]["error"])
    return None


def shown(value):
    """Give a value as an error message shows it: as YAML has it, and not too long."""
    words = {None: "none", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, (list, tuple)):
        text = f"the list [{', '.join(shown(each) for each in value[:5])}]"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _kind_in_words(base, choices):
    if choices:
        return f"one of {', '.join(str(each) for each in choices)}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(base, "a list of words")


def _limits_in_words(limits):
    low = f"from {limits['ge']:g}" if "ge" in limits else ""
    low = f"above {limits['gt']:g}" if "gt" in limits else low
    high = f"to {limits['le']:g}" if "le" in limits else ""
    high = f"below {limits['lt']:g}" if "lt" in limits else high
    if low.startswith("from") and not high:
        return f" of at least {limits['ge']:g}"
    if high.startswith("to") and not low:
        return f" of at most {limits['le']:g}"
    both = " and " if low and high.startswith("below") else " "
    return (" " + both.join(each for each in (low, high) if each)) if low or high else ""


@cache
def keys_of(model):
    """Give the keys of a Keys model: group by group, in the order in which they are declared."""
    classes = [each for each in model.__mro__ if issubclass(each, Keys)]
    declared_in = {name: each for each in classes for name in each.model_fields}
    return tuple(
        _key(name, field, declared_in[name].__doc__.splitlines()[0].rstrip("."))
        for each in classes
        for name, field in each.model_fields.items()
        if declared_in[name] is each
    )


def _key(name, field, group):
    base, limits, is_optional = _take_apart(field.annotation, field.metadata)
    choices = typing.get_args(base) if typing.get_origin(base) is typing.Literal else ()
    return Key(
        name=name,
        default=field.get_default(call_default_factory=True),
        meaning=field.description,
        group=group,
        **field.json_schema_extra,
        base=type(choices[0]) if choices else typing.get_origin(base) or base,
        choices=choices,
        limits=limits,
        is_optional=is_optional,
        adapter=TypeAdapter(typing.Annotated[field.annotation, field], config=STRICT),
    )


def _take_apart(annotation, metadata):
    """Give (plain type, limits by name, whether None is allowed) of an annotation."""
    limits = {}
    is_optional = False
    for each in metadata:
        limits |= {n: getattr(each, n) for n in ("ge", "gt", "le", "lt") if hasattr(each, n)}
        inner = getattr(each, "metadata", ())
        if inner:
            limits |= _take_apart(None, inner)[1]
    if typing.get_origin(annotation) is typing.Annotated:
        base, *more = typing.get_args(annotation)
        inner, more_limits, is_optional = _take_apart(base, more)
        return inner, limits | more_limits, is_optional
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [each for each in typing.get_args(annotation) if each is not type(None)]
        inner, more_limits, _ = _take_apart(members[0], ())
        return inner, limits | more_limits, len(members) < len(typing.get_args(annotation))
    return annotation, limits, is_optional
