"""An image's bytes → what the network says of it, and why, as JSON has it."""

import base64
import io
import warnings
from dataclasses import replace

import numpy as np
from PIL import Image

from library.counted import counted_classes
from library.dataset.images import KINDS, ImageOptions, UnusableImageError, decode_image
from library.explaining.grad_cam import HeatMaps
from library.explaining.overlays import as_colour, encode_image, paint_heat
from library.inputs.decoding import ImageFormat
from library.prediction.pictures import Pictures
from library.prediction.predictor import Predictor
from library.serving.refusals import RefusedError

# The picture that is sent back under its heat is no longer than this.
_SHOWN_EDGE = 640


class ServedModel:
    """A snapshot that answers about one image at a time. Not for several threads at once."""

    def __init__(self, snapshot, max_megapixels=50.0):
        self.classes = snapshot.classes
        self.name = snapshot.network.name
        classes = counted_classes(len(self.classes))
        self.subject = f"{self.name}, {classes}, {snapshot.folder}"
        self._max_pixels = int(max_megapixels * 1e6)
        _, height, _, channels = snapshot.network.input_shape
        options = replace(snapshot.image_options, max_pixels=self._max_pixels)
        self._pictures = Pictures(ImageFormat(height, channels), options)
        self._predictor = Predictor([snapshot])
        self._maps = HeatMaps(snapshot.network)
        # Compiled now, so that the first picture waits no longer than others.
        empty = np.zeros((1, height, height, channels), np.uint8)
        self._predictor.probabilities(empty)
        self._maps.heat(empty, [0])

    def answer(self, content):
        """Give the classes of an image with their probabilities. Raises RefusedError."""
        return self._answer(self._pixels(content))

    def explain(self, content, name=""):
        """Give `answer`, the picture, and heat for the class `name` (the likeliest one if empty).

        Pictures are data: URLs: `picture` as it was understood, upright and opaque, and
        `heat.image`, transparent where it is cold, to be laid over it.
        """
        if name and name not in self.classes:
            raise RefusedError("unknown_class", f"there is no class {name!r}")
        pixels = self._pixels(content)
        answer = self._answer(pixels)
        name = name or answer["class"]
        heat, _ = self._maps.heat(pixels[np.newaxis], [self.classes.index(name)])
        shown, _ = decode_image(
            content, ImageOptions(max_edge=_SHOWN_EDGE, max_pixels=self._max_pixels)
        )
        picture = as_colour(shown)
        painted = encode_image(paint_heat(heat[0], picture.size))
        return {
            **answer,
            "picture": _url("webp", encode_image(picture, "WEBP", quality=85)),
            "heat": {
                "class": name,
                "method": self._maps.method,
                "layer": self._maps.layer,
                "is_empty": not heat.any(),
                "image": _url("png", painted),
            },
        }

    def _pixels(self, content):
        self._check_header(content)
        try:
            return self._pictures.pixels(content)
        except UnusableImageError as error:
            raise RefusedError("damaged_image", f"the image {error}") from None
        except MemoryError:
            raise RefusedError("too_many_pixels", "the image needs too much memory") from None

    def _check_header(self, content):
        """Refuse what is no image, or too large a one, before a pixel is decoded."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(content), formats=KINDS) as image:
                    width, height = image.size
        except Image.UnidentifiedImageError:
            raise RefusedError(
                "no_image_format", "the upload is no JPEG, PNG, GIF, BMP, TIFF or WebP image"
            ) from None
        except Exception:
            # Hostile bytes may raise anything here; decoding them will say what is wrong.
            return
        if width * height > self._max_pixels:
            raise RefusedError(
                "too_many_pixels",
                f"the image has {width} x {height} pixels, more than "
                f"{self._max_pixels / 1e6:g} million",
            )

    def _answer(self, pixels):
        (probabilities,) = self._predictor.probabilities(pixels[np.newaxis])
        order = np.argsort(-probabilities, kind="stable")
        ranking = [
            {"class": self.classes[each], "probability": float(probabilities[each])}
            for each in order
        ]
        return {**ranking[0], "classes": ranking}


def _url(kind, content):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
