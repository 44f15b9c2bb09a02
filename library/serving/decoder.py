"""An upload's bytes → a JPEG for the network and a picture to show, in a process of its own.

Whoever reaches the server can send what makes a decoder crash: that costs the upload alone.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from library.dataset.images import FORMATS, ImageOptions, convert_image, decode_image
from library.dataset.worker_pool import WorkerPool
from library.serving.refusals import RefusedError

# The picture that is sent back under its heat is no longer than this.
_SHOWN_EDGE = 640
# Longer than a whole page of a scanner takes.
_SECONDS = 20


class UploadDecoder:
    """Decodes one upload after the other. A context manager: it ends the process."""

    def __init__(self, options, seconds=_SECONDS):
        self._workers = WorkerPool(_Decode(options), 1, options.memory_bytes, seconds)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._workers.__exit__(*error)

    def decode(self, content, is_shown=False):
        """Give (what convert_image gives, uint8 pixels to show or None). Raises RefusedError."""
        is_done, answer = self._workers.apply((content, is_shown))
        if not is_done:
            raise RefusedError("damaged_image", f"the image {answer}")
        refusal, converted, shown = answer
        if refusal:
            raise RefusedError(*refusal)
        return converted, shown


@dataclass(frozen=True)
class _Decode:
    """The function of the process: (bytes, is_shown) → (refusal, converted, shown)."""

    options: ImageOptions

    def __call__(self, item):
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


def _find_refusal(content, max_pixels):
    """Give (word, text) for what is no image, or too large a one; no pixel is decoded for that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Image.UnidentifiedImageError:
        return "no_image_format", "the upload is no JPEG, PNG, GIF, BMP, TIFF or WebP image"
    except Exception:
        # Hostile bytes may raise anything here; decoding them will say what is wrong.
        return None
    if width * height > max_pixels:
        text = f"the image has {width} x {height} pixels, more than {max_pixels / 1e6:g} million"
        return "too_many_pixels", text
    return None
