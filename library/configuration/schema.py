"""What a key is: its type, range, default and meaning, declared in one line of a model."""

import re
import types
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from library.errors import SettingsError
from library.messages import did_you_mean, shown

# No silent conversion: the text "3" is no number, 1.0 is no whole number, NaN is nothing at all.
STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def _not_a_url(path):
    # Path("gs://bucket/run") would be a folder gs: in the working folder.
    if _URL.match(path):
        raise ValueError(f"must be a local path, not the URL {shown(path)}")
    return path


# The types that settings are made of.
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Words = Annotated[tuple[Text, ...], Field(strict=False, max_length=1000), FailFast()]
# Files and folders of what can't read or write at a URL.
LocalPath = Annotated[Text, AfterValidator(_not_a_url)]
LocalPaths = Annotated[tuple[LocalPath, ...], Field(strict=False, max_length=1000), FailFast()]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
PositiveOrZero = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list of words",
}


def key(default, meaning, short="", follows="", also=()):
    """Declare one key of a Keys model.

    `short` is its short option, without the dash. `follows` says what stands for None:
    "{batch_size}" the value of that key, "{run_dir}/best" a text made of it. `also` are names that
    the key has elsewhere, which are understood in YAML and on the command line.
    """
    extra = {"short": short, "follows": follows, "also": tuple(also), "is_request": False}
    return Field(default, description=meaning, json_schema_extra=extra)


def request(meaning):
    """Declare a flag that asks for something else than a run, such as --print_config."""
    extra = {"short": "", "follows": "", "also": (), "is_request": True}
    return Field(False, description=meaning, json_schema_extra=extra)


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
    group: str
    default: object
    meaning: str
    short: str
    follows: str
    also: tuple
    is_request: bool
    # int, float, bool, str or tuple
    base: type
    choices: tuple
    limits: dict
    is_optional: bool
    annotation: object

    @property
    def names(self):
        """The key's name, and the other names that it goes by."""
        return (self.name, *self.also)

    @property
    def is_flag(self):
        """Whether the option stands without a value: --name, --no_name."""
        return self.base is bool

    @property
    def expected(self):
        """Say which values are right, to follow the words 'must be'."""
        words = _KINDS[self.base] + _limits_in_words(self.limits)
        if self.choices:
            words = f"one of {', '.join(str(each) for each in self.choices)}"
        return words + (", or none" if self.is_optional else "")

    @property
    def followed_words(self):
        """Say what stands for None: `batch_size`, `run_dir/best`."""
        return self.follows.replace("{", "").replace("}", "")

    def followed(self, model):
        """Return what stands for None in `model`, where this key follows another one."""
        if self.follows == f"{{{self.followed_words}}}":
            return getattr(model, self.followed_words)
        return self.follows.format_map(vars(model))

    def check(self, value, subject=None):
        """Return the value as the model holds it. Raises SettingsError about `subject`."""
        if self.is_optional and isinstance(value, str) and value.lower() == "none":
            return None  # What people write for "no value", in YAML and on the command line.
        is_text = isinstance(value, str) and self.base is str and not self.choices
        expected = "text of 1 to 4096 characters, none of them NUL" if is_text else self.expected
        words = f"must be {expected}, not {shown(value)}"
        # pydantic takes 1.0 and true for the choice 1.
        allowed = (*self.choices, None) if self.is_optional else self.choices
        if self.choices and not any(_is_same(value, each) for each in allowed):
            words += did_you_mean(value, [str(each) for each in self.choices])
            raise SettingsError(f"{subject or self.name} {words}")
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            words = own_words(error) or words
            raise SettingsError(f"{subject or self.name} {words}") from None

    @cached_property
    def _adapter(self):
        return TypeAdapter(self.annotation, config=STRICT)


def own_words(error):
    """Return the words of a ValueError that the project's own check raised, if that is error."""
    first = error.errors(include_url=False)[0]
    return str(first["ctx"]["error"]) if first["type"] == "value_error" else None


def _is_same(value, other):
    return type(value) is type(other) and value == other


def _limits_in_words(limits):
    low = next((f"{_LOW[name]} {limits[name]:g}" for name in _LOW if name in limits), "")
    high = next((f"{_HIGH[name]} {limits[name]:g}" for name in _HIGH if name in limits), "")
    return "".join(f" {each}" for each in (low, low and high and "and", high) if each)


_LOW = {"ge": "of at least", "gt": "above"}
_HIGH = {"le": "of at most", "lt": "below"}


@cache
def keys_of(model):
    """Return the keys of a Keys model: group by group, in the order in which they are declared."""
    classes = [each for each in model.__mro__ if issubclass(each, Keys)]
    # The last one in this order that has the field is the one that declares it.
    home = {name: each for each in classes for name in each.model_fields}
    return tuple(
        _key(name, field, home[name])
        for each in classes
        for name, field in each.model_fields.items()
        if home[name] is each
    )


def _key(name, field, home):
    base, limits, is_optional = _take_apart(field.annotation, field.metadata)
    choices = get_args(base) if get_origin(base) is Literal else ()
    return Key(
        name=name,
        group=(home.__doc__ or home.__name__).splitlines()[0].rstrip("."),
        default=field.get_default(call_default_factory=True),
        meaning=field.description,
        **field.json_schema_extra,
        base=type(choices[0]) if choices else get_origin(base) or base,
        choices=choices,
        limits=limits,
        is_optional=is_optional,
        annotation=Annotated[field.annotation, field],
    )


def _take_apart(annotation, metadata=()):
    """Give (plain type, limits by name, whether None is allowed) of an annotation."""
    limits, is_optional = {}, False
    for each in metadata:
        # An Annotated alias carries a FieldInfo, which carries the limits.
        for limit in (each, *getattr(each, "metadata", ())):
            limits |= {n: getattr(limit, n) for n in (*_LOW, *_HIGH) if hasattr(limit, n)}
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        annotation, more_limits, is_optional = _take_apart(inner, more)
        limits |= more_limits
    elif get_origin(annotation) in (Union, types.UnionType):
        members = [each for each in get_args(annotation) if each is not type(None)]
        is_optional = len(members) < len(get_args(annotation))
        annotation, more_limits, _ = _take_apart(members[0])
        limits |= more_limits
    return annotation, limits, is_optional
