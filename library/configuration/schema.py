"""Settings declared in one line each: type, range, default and meaning."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from library.configuration.paths import escape_path, expand_path, refuse_url
from library.errors import SettingsError
from library.messages import did_you_mean, shown

# No silent conversion: "3" is not a number, 1.0 is not an integer, and NaN is refused.
STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
# The format of a path in a key's JSON schema.
_PATH, _PATH_OR_URL = "path", "path-or-url"
# The types that settings are made of.
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Words = Annotated[tuple[Text, ...], Field(strict=False, max_length=1000), FailFast()]
# Files and folders: only keys of these types have ~ and $NAME expanded.
PathOrUrl = Annotated[Text, Field(json_schema_extra={"format": _PATH_OR_URL})]
# Those that are read or written by what cannot use a URL.
LocalPath = Annotated[Text, AfterValidator(refuse_url), Field(json_schema_extra={"format": _PATH})]
LocalPaths = Annotated[tuple[LocalPath, ...], Field(strict=False, max_length=1000), FailFast()]


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


# Files and patterns, any number of them; as an option, all words up to the next option.
Files = Annotated[
    tuple[PathOrUrl, ...],
    Field(strict=False, max_length=100_000),
    FailFast(),
    BeforeValidator(_as_list, json_schema_input_type=list[str] | str),
]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
# What TensorFlow and Keras hold in 32 bits.
_MAX_INT32 = 2**31 - 1
Count32 = Annotated[int, Field(ge=1, le=_MAX_INT32)]
CountOrZero32 = Annotated[int, Field(ge=0, le=_MAX_INT32)]
# What NumPy's generators take.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0)]
PositiveOrZero = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
_KINDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    tuple: "a list of strings",
}
# By their names in JSON schemas.
_TYPES = {"integer": int, "number": float, "boolean": bool, "string": str, "array": tuple}
_LIMITS = {
    "minimum": "of at least",
    "exclusiveMinimum": "greater than",
    "maximum": "of at most",
    "exclusiveMaximum": "less than",
}
# Where values come from, beside a file, line and set.
DEFAULT = "default"
COMMAND_LINE = "command line"


def key(
    default: Any,
    meaning: str,
    short: str = "",
    follows: str = "",
    also: Iterable[str] = (),
    bare: str = "",
    takes_options: bool = False,
) -> Any:
    """Declare one key of a Keys model.

    Args:
        default: The default value.
        meaning: One line for --help and the documentation.
        short: The short option, without its dash.
        follows: What replaces None: "{batch_size}", the value of that key; "{run_dir}/best", a
            string made from it.
        also: Other names of the key, in YAML and on the command line.
        bare: What the option stands for if no value follows it.
        takes_options: Whether its value is options of another program, which begin with dashes.
    """
    extra: Any = {"short": short, "follows": follows, "also": tuple(also)}
    if bare:
        extra["bare"] = bare
    if takes_options:
        extra["takes_options"] = True
    return Field(default, description=meaning, json_schema_extra=extra)


def action(meaning: str) -> Any:
    """Declare a flag that asks for something other than a run, such as --print_config."""
    return Field(False, description=meaning, json_schema_extra={"is_action": True})


class Keys(BaseModel):
    """A frozen group of settings, under one heading; a model of several groups inherits from them.

    If a key follows another one, its None is replaced.
    """

    model_config = STRICT
    heading: ClassVar[str] = "Options"

    @model_validator(mode="after")
    def _follow(self) -> Self:
        for each in keys_of(type(self)):
            if each.follows and getattr(self, each.name) is None:
                # Frozen for everyone else; here the model is still being made.
                self.__dict__[each.name] = each.followed(self)
        return self


@dataclass(frozen=True)
class Key:
    """One key of a Keys model, as YAML, the command line and --help need it."""

    name: str
    heading: str
    default: Any
    meaning: str
    # int, float, bool, str or tuple
    base: type
    choices: tuple[Any, ...]
    # By their names in JSON schemas: minimum, exclusiveMinimum, ….
    limits: dict[str, float]
    is_optional: bool
    annotation: Any
    is_path: bool = False
    accepts_url: bool = False
    short: str = ""
    follows: str = ""
    also: tuple[str, ...] = ()
    bare: str = ""
    takes_options: bool = False
    is_action: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The key's name and its other names."""
        return (self.name, *self.also)

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value: --name, --no-name."""
        return self.base is bool

    @property
    def takes_words(self) -> bool:
        """Whether the option takes all words up to the next option: what a shell makes of *."""
        return self.base is tuple and self.accepts_url

    @property
    def expected(self) -> str:
        """Which values are valid, to follow the words 'must be'."""
        words = _KINDS[self.base] + _describe_limits(self.limits)
        if self.choices:
            words = f"one of {', '.join(str(each) for each in self.choices)}"
        return words + (", or none" if self.is_optional else "")

    @property
    def followed_words(self) -> str:
        """What replaces None, for people: `batch_size`, `run_dir/best`."""
        return self.follows.replace("{", "").replace("}", "")

    def followed(self, model: Keys) -> Any:
        """Return what replaces None in `model`, if this key follows another one."""
        if self.follows == f"{{{self.followed_words}}}":
            return getattr(model, self.followed_words)
        return self.follows.format_map(vars(model))

    def check(self, value: Any, subject: str = "") -> Any:
        """Return a value as the model holds it.

        Raises:
            SettingsError: If it is invalid; the message starts with `subject`, or the key's name.
        """
        if self.is_optional and isinstance(value, str) and value.lower() == "none":
            return None  # What people write for "no value", in YAML and on the command line.
        is_text = isinstance(value, str) and self.base is str and not self.choices
        expected = "a string of 1 to 4096 characters, without NUL" if is_text else self.expected
        message = f"must be {expected}, not {shown(value)}"
        # pydantic accepts 1.0 and true for the choice 1.
        allowed = (*self.choices, None) if self.is_optional else self.choices
        if self.choices and not any(type(value) is type(c) and value == c for c in allowed):
            hint = did_you_mean(value, map(str, self.choices))
            raise SettingsError(f"{subject or self.name} {message}{hint}")
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            message = own_message(error) or message
            if type(value) is int and value > _MAX_INT32 == self.limits.get("maximum"):
                message = f"must be at most {_MAX_INT32}, not {value}"
            raise SettingsError(f"{subject or self.name} {message}") from None

    def expand(self, value: Any, subject: str = "") -> Any:
        """Return a value as written with ~ and variables expanded, if this is a key of paths.

        Raises:
            SettingsError: There is no such user or variable; the message starts with `subject`.
        """
        try:
            return self._map_paths(expand_path, value)
        except ValueError as error:
            raise SettingsError(f"{subject or self.name} {error}") from None

    def escape(self, value: Any) -> Any:
        """Return what is written for an expanded value: `expand` returns the value again."""
        return self._map_paths(escape_path, value)

    def _map_paths(self, function: Callable[[str], str], value: Any) -> Any:
        if not self.is_path:
            return value
        if isinstance(value, list | tuple):
            return type(value)(self._map_paths(function, each) for each in value)
        return function(value) if isinstance(value, str) else value

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """What validates a value, and knows its JSON schema."""
        return TypeAdapter(self.annotation, config=STRICT)


class Value(NamedTuple):
    """A key's value and where it comes from: DEFAULT, COMMAND_LINE, or file, line and set."""

    value: Any
    provenance: str


def own_message(error: ValidationError) -> str:
    """Return the message of a ValueError that the project's own check raised, or ''."""
    first = error.errors(include_url=False)[0]
    return str(first["ctx"]["error"]) if first["type"] == "value_error" else ""


def _describe_limits(limits: dict[str, float]) -> str:
    """Return a range in words; the limit of 32 bits goes without saying."""
    shown_limits = {name: value for name, value in limits.items() if value != _MAX_INT32}
    texts = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in shown_limits.items()}
    if texts.keys() >= {"minimum", "maximum"}:
        return f" from {texts['minimum']} to {texts['maximum']}"
    words = [f"{text} {texts[name]}" for name, text in _LIMITS.items() if name in texts]
    return " " * bool(words) + " and ".join(words)


@cache
def keys_of(model: type[Keys]) -> tuple[Key, ...]:
    """Return the keys of a Keys model, group by group, in the order of their declarations."""
    classes = [each for each in model.__mro__ if issubclass(each, Keys)]
    # The last class in this order that has a field is the one that declares it.
    home = {name: each for each in classes for name in each.model_fields}
    # Of values as the model holds them, not as a validator may take them.
    schemas = model.model_json_schema(mode="serialization")["properties"]
    return tuple(
        _make_key(name, field, each.heading, schemas[name])
        for each in classes
        for name, field in each.model_fields.items()
        if home[name] is each
    )


def _make_key(name: str, field: FieldInfo, heading: str, schema: dict[str, Any]) -> Key:
    alternatives = schema.get("anyOf", [schema])
    kind = next(each for each in alternatives if each["type"] != "null")
    extra: Any = field.json_schema_extra
    extra = {name: value for name, value in extra.items() if name != "format"}
    format = kind.get("items", kind).get("format")
    return Key(
        name=name,
        heading=heading,
        default=field.get_default(call_default_factory=True),
        meaning=field.description or "",
        base=_TYPES[kind["type"]],
        choices=tuple(kind.get("enum", ())),
        limits={limit: kind[limit] for limit in _LIMITS if limit in kind},
        is_optional=len(alternatives) > 1,
        annotation=Annotated[field.annotation, field],
        is_path=format in (_PATH, _PATH_OR_URL),
        accepts_url=format == _PATH_OR_URL,
        **extra,
    )
