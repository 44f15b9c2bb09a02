"""An image of a split as an <img> that needs no other file."""

import base64
import io

from PIL import Image

_EDGE = 128


def thumbnail(pixels):
    """Return HTML for uint8 pixels (height, width, 1 or 3), as the network saw them.

    Small ones keep each pixel, enlarged by the browser; large ones are shrunk.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    is_small = max(image.size) <= _EDGE / 2
    content = io.BytesIO()
    if is_small:
        image.save(content, "PNG", optimize=True)
    else:
        image.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
        image.save(content, "JPEG", quality=80)
    kind = "png" if is_small else "jpeg"
    encoded = base64.b64encode(content.getvalue()).decode()
    look = ' class="pixelated"' if is_small else ""
    return f'<img{look} alt="" loading="lazy" src="data:image/{kind};base64,{encoded}">'
