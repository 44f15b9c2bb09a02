"""One file's bytes → a conformant JPEG, or the reason why not."""

import io
from dataclasses import dataclass

from PIL import Image, ImageOps


class UnusableImage(Exception):
    """The bytes are no image that can be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a stored image may be. `max_edge` is in pixels; 0 leaves the size alone."""

    max_edge: int = 384
    quality: int = 95


def convert_image(content, options):
    """Give (JPEG bytes, height, width). Raises UnusableImage."""
    if not content:
        raise UnusableImage("is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            image = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableImage(f"is no image that can be decoded: {error}") from None
    if options.max_edge and max(image.size) > options.max_edge:
        image.thumbnail((options.max_edge, options.max_edge), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=options.quality)
    return jpeg.getvalue(), image.height, image.width
