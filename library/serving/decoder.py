"""Decode uploads in a process of their own: an upload that crashes a decoder costs only itself."""

import io
import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from library.dataset.images import FORMATS, ImageOptions, convert_image, decode_image
from library.dataset.worker_pool import WorkerPool
from library.serving.request_error import RequestError

# The longest edge of the image that is sent back below its heat map, in pixels.
_SHOWN_EDGE = 640
# Longer than decoding a scanned page takes.
_SECONDS = 20

# An image as convert_image returns it: (JPEG bytes, height, width).
Converted = tuple[bytes, int, int]


class UploadDecoder:
    """Decodes one upload at a time. A context manager, which ends the process.

    Args:
        options: How images were converted for training.
        seconds: Longest time for one image.
    """

    def __init__(self, options: ImageOptions, seconds: float = _SECONDS) -> None:
        self._pool = WorkerPool(_Decode(options), 1, options.memory_bytes, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def decode(self, content: bytes, is_shown: bool = False) -> tuple[Converted, np.ndarray | None]:
        """Decode the bytes of an image file.

        Args:
            content: The bytes.
            is_shown: Whether to decode an image to show, too.

        Returns:
            The converted image, and uint8 pixels to show, or None.

        Raises:
            RequestError: The image is not usable.
        """
        is_done, result = self._pool.apply((content, is_shown))
        if not is_done:
            raise RequestError("damaged_image", f"the image {result}")
        refusal, converted, shown = result
        if refusal:
            raise RequestError(*refusal)
        return converted, shown


@dataclass(frozen=True)
class _Decode:
    """The function of the process: (content, is_shown) → (refusal, converted, shown)."""

    options: ImageOptions

    def __call__(
        self, item: tuple[bytes, bool]
    ) -> tuple[tuple[str, str] | None, Converted | None, np.ndarray | None]:
        content, is_shown = item
        refusal = _find_refusal(content, self.options.max_pixels)
        if refusal:
            return refusal, None, None
        shown = None
        converted = convert_image(content, self.options)
        if is_shown:
            options = ImageOptions(max_edge=_SHOWN_EDGE, max_pixels=self.options.max_pixels)
            shown, _ = decode_image(content, options)
        return None, converted, shown


def _find_refusal(content: bytes, max_pixels: int) -> tuple[str, str] | None:
    """Return (code, message) for other files and images that are too large, without decoding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Image.UnidentifiedImageError:
        return "no_image_format", "the upload is not a JPEG, PNG, GIF, BMP, TIFF or WebP image"
    except Exception:
        # Pillow may raise any error for hostile bytes; decoding will find the reason.
        return None
    if width * height > max_pixels:
        text = f"the image has {width} x {height} pixels, more than {max_pixels / 1e6:g} million"
        return "too_many_pixels", text
    return None
