"""The options of a conversion and their defaults, without the libraries that convert."""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from library.messages import shown

# The longest edge that libjpeg takes.
MAX_JPEG_EDGE = 65_500
_FULL_COLOR_MAX_EDGES = {"auto": 128, "444": MAX_JPEG_EDGE, "420": 0}
# Upper bounds: of an image's memory while it is decoded, and of what a process takes by itself.
_BYTES_PER_PIXEL, _MIN_MEMORY_BYTES = 16, 2 << 30


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are stored.

    Attributes:
        max_edge: Longest edge in pixels; 0: any.
        quality: Of JPEGs, 1 to 100.
        color_space: `rgb` or `gray`.
        background: Color behind transparent pixels: red, green, blue, 0 to 255.
        max_pixels: Larger images are refused before they are decoded.
        chroma: `444` stores color at full resolution, `420` at half of it in both directions;
            `auto`: at full resolution up to 128 pixels, where half of it would show.
    """

    max_edge: int = 384
    quality: int = 95
    color_space: str = "rgb"
    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = 128_000_000
    chroma: str = "auto"

    @property
    def full_color_max_edge(self) -> int:
        """The longest edge in pixels of images that store color at full resolution."""
        return _FULL_COLOR_MAX_EDGES[self.chroma]

    @property
    def memory_bytes(self) -> int:
        """The most memory that a decoding process may need."""
        return max(_MIN_MEMORY_BYTES, _BYTES_PER_PIXEL * self.max_pixels)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return asdict(self) | {"background": list(self.background)}


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert a split.

    Attributes:
        num_shards: 0: as many as fit the data.
        num_workers: Processes that decode; None: one per core.
        random_seed: Of the order of images.
        max_bad_fraction: Largest share of unusable images.
        seconds_per_image: An image that takes longer to decode is unusable.
        classes_from: Manifest that fixes the classes; None: the training split's beside this one,
            if there is one, or else the classes found.
        class_order: How classes that no manifest fixes are sorted: `code_point` or `natural`.
        overwrite: Whether to replace a finished split that was made with other settings.
    """

    images: ImageOptions = field(default_factory=ImageOptions)
    num_shards: int = 0
    num_workers: int | None = None
    random_seed: int = 0
    max_bad_fraction: float = 0.01
    seconds_per_image: float = 60.0
    classes_from: Path | str | None = None
    class_order: str = "code_point"
    overwrite: bool = False


def read_image_options(settings: Mapping[str, Any]) -> ImageOptions:
    """Return the ImageOptions among JSON values; what is missing has its default.

    Raises ValueError for a value that no conversion can have written.
    """
    values = {name: value for name, value in settings.items() if name in _VALID}
    for name, value in values.items():
        parts = value if name == "background" and isinstance(value, list) else [value]
        # By type, because True is 1, and a text would be searched in a whole range.
        kind = int if isinstance(_VALID[name], range) else str
        is_valid = all(type(each) is kind and each in _VALID[name] for each in parts)
        if not is_valid or len(parts) != (3 if name == "background" else 1):
            raise ValueError(f"{name!r} can't be {shown(value)}")
    if "background" in values:
        values["background"] = tuple(values["background"])
    return ImageOptions(**values)


_VALID: Mapping[str, Container[Any]] = {
    "max_edge": range(2**53),
    "quality": range(1, 101),
    "color_space": ("rgb", "gray"),
    "background": range(256),
    "max_pixels": range(2**53),
    "chroma": tuple(_FULL_COLOR_MAX_EDGES),
}
