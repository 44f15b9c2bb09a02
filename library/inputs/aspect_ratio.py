"""How an image gets the aspect ratio of the network's input: squeezed, cropped or padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import tensorflow as tf

SQUEEZE, CROP, PAD = "squeeze", "crop", "pad"
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Fit:
    """How a whole image becomes the network's input, wherever no random crop chooses a window.

    Attributes:
        name: SQUEEZE resizes the image without regard to its aspect ratio. CROP resizes a centered
            window of the network's aspect ratio. PAD resizes the image, keeping its aspect ratio,
            and centers it on the background.
        crop_fraction: The share, in (0, 1], of the edges of the largest window that fits into the
            image; what timm calls `crop_pct`.
        background: Red, green, blue, 0 to 255, of what PAD adds.
    """

    name: str = SQUEEZE
    crop_fraction: float = 1.0
    background: tuple[int, int, int] = WHITE

    def __post_init__(self) -> None:
        # What has no effect makes no difference. Frozen from here on.
        if self.name != CROP:
            object.__setattr__(self, "crop_fraction", 1.0)
        if self.name != PAD:
            object.__setattr__(self, "background", WHITE)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], background: tuple[int, int, int]) -> Self:
        """Return the Fit of what `to_json` made; SQUEEZE if that is empty.

        Raises:
            ValueError: A value is none that `to_json` can have made.
        """
        name, fraction = values.get("name", SQUEEZE), values.get("crop_fraction", 1.0)
        if name not in (SQUEEZE, CROP, PAD):
            raise ValueError(f"'name' can't be {name!r}")
        if type(fraction) not in (int, float) or not 0 < fraction <= 1:
            raise ValueError(f"'crop_fraction' can't be {fraction!r}")
        return cls(name, float(fraction), background)

    def to_json(self) -> dict[str, Any]:
        """Return the name and the crop fraction; the conversion's options hold the background."""
        return {"name": self.name, "crop_fraction": self.crop_fraction}

    def __str__(self) -> str:
        """Return what the name of a cache ends with: nothing for SQUEEZE, as before version 0.3."""
        details = {CROP: f"{self.crop_fraction:g}", PAD: bytes(self.background).hex()}
        return f"-{self.name}-{details[self.name]}" if self.name in details else ""

    @property
    def gray(self) -> int:
        """The background of a network of one channel."""
        return round(np.dot(self.background, (0.299, 0.587, 0.114)))

    def window(self, shape: tf.Tensor, size: Sequence[int]) -> tf.Tensor | None:
        """Return the part of an image that the network sees.

        Args:
            shape: The image's shape, int32 (height, width, …).
            size: The network's (height, width).

        Returns:
            int32 (y, x, height, width); None for the whole image. Height and width are rounded to
            the nearest pixel (halves to even), but are at least 1; of an odd margin, the larger
            half is below or on the right.
        """
        if self.name != CROP:
            return None
        edges = tf.reduce_min(shape[:2] / size) * self.crop_fraction * size
        window = tf.clip_by_value(tf.cast(tf.round(edges), tf.int32), 1, shape[:2])
        return tf.concat([(shape[:2] - window) // 2, window], 0)

    def inner_size(self, shape: tf.Tensor, size: Sequence[int]) -> tf.Tensor | Sequence[int]:
        """Return the (height, width) that the image has within the network's input.

        Args:
            shape: The image's shape, int32 (height, width, …).
            size: The network's (height, width).

        Returns:
            `size`; for PAD, int32 (2,): one edge is the network's, the other is rounded to the
            nearest pixel (halves to even), but is at least 1.
        """
        if self.name != PAD:
            return size
        edges = tf.cast(shape[:2], tf.float64) / tf.reduce_max(shape[:2] / size)
        return tf.clip_by_value(tf.cast(tf.round(edges), tf.int32), 1, size)

    def pad(self, image: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
        """Center uint8 pixels on a background of (height, width).

        Of an odd margin, the larger half is below or on the right.
        """
        if self.name != PAD:
            return image
        channels = image.shape[-1]
        color = np.array(self.background if channels == 3 else [self.gray], np.uint8)
        background = tf.constant(np.broadcast_to(color, (*size, channels)))
        height, width = tf.unstack(tf.shape(image)[:2])
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        bottom, right = size[0] - height - top, size[1] - width - left
        # Joining is several times as fast as choosing between two images.
        rows = [background[:top, :width], image, background[:bottom, :width]]
        return tf.concat([background[:, :left], tf.concat(rows, 0), background[:, :right]], 1)

    def region(self, shape: Sequence[int], size: Sequence[int]) -> tuple[float, ...]:
        """Return the part of an image that the network's input covers.

        Args:
            shape: The image's (height, width).
            size: The network's (height, width).

        Returns:
            (top, left, bottom, right) in shares of the image's edges: beyond 0 and 1 for PAD.
        """
        edges = np.asarray(shape[:2])
        begin, extent = np.zeros(2), edges
        if self.name == CROP:
            begin, extent = np.split(np.asarray(self.window(tf.constant(edges, tf.int32), size)), 2)
        elif self.name == PAD:
            inner = np.asarray(self.inner_size(tf.constant(edges, tf.int32), size))
            extent = edges * size / inner
            begin = -((np.asarray(size) - inner) // 2) * edges / inner
        return (*(begin / edges), *((begin + extent) / edges))


SQUEEZED = Fit()
