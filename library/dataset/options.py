"""The options of a conversion and their defaults, without the libraries that convert."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

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
    """

    max_edge: int = 384
    quality: int = 95
    color_space: str = "rgb"
    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = 128_000_000

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
    """

    images: ImageOptions = field(default_factory=ImageOptions)
    num_shards: int = 0
    num_workers: int | None = None
    random_seed: int = 0
    max_bad_fraction: float = 0.01
    seconds_per_image: float = 60.0
    classes_from: Path | str | None = None


def read_image_options(settings: Mapping[str, Any]) -> ImageOptions:
    """Return the ImageOptions among JSON values; what is missing has its default."""
    known = {each.name for each in fields(ImageOptions)}
    values = {name: value for name, value in settings.items() if name in known}
    if "background" in values:
        values["background"] = tuple(values["background"])
    return ImageOptions(**values)
