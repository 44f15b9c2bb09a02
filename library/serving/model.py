"""An image's bytes → what the network says of it, and why, as JSON has it."""

import base64
from dataclasses import replace

import numpy as np

from library.dataset.images import UnusableImageError
from library.explaining.grad_cam import HeatMaps
from library.explaining.overlays import color_heatmap, encode_image, to_color
from library.messages import counted_classes
from library.prediction.calibrate import choose_classes
from library.prediction.predictor import Predictor
from library.prediction.preprocess import NAN_SCORES, ImagePreprocessor
from library.serving.decoder import UploadDecoder
from library.serving.refusals import RefusedError


class ServedModel:
    """A snapshot that answers about one image at a time. Not for several threads at once.

    A context manager: it ends the process that decodes. Below `threshold` the answer is unknown;
    scores are divided by `temperature`.
    """

    def __init__(self, snapshot, max_megapixels=50.0, threshold=None, temperature=None):
        self.classes = snapshot.classes
        self.name = snapshot.network.name
        classes = counted_classes(len(self.classes))
        self.subject = f"{self.name}, {classes}, {snapshot.folder}"
        if threshold is not None:
            self.subject += f", from a probability of {threshold:.4g} on"
        self._threshold = threshold
        options = replace(snapshot.image_options, max_pixels=int(max_megapixels * 1e6))
        self._decoder = UploadDecoder(options)
        self._pictures = ImagePreprocessor.for_snapshot(snapshot)
        self._predictor = Predictor([snapshot], [temperature or 1.0])
        self._maps = HeatMaps(snapshot.network)
        # Compiled now, so that the first picture waits no longer than others.
        empty = np.zeros((1, *self._pictures.image_format.shape), np.uint8)
        self._predictor.probabilities(empty)
        self._maps.heat(empty, [0])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._decoder.__exit__(*error)

    def answer(self, content):
        """Return the classes of an image with their probabilities, likeliest first.

        `class` and `probability` are the likeliest one's, but `class` is unknown below the
        threshold; where several may be right, `found` is all of those. Raises RefusedError.
        """
        converted, _ = self._decoder.decode(content)
        return self._answer(self._pixels(converted))

    def explain(self, content, name=""):
        """Give `answer`, the picture, and heat for the class `name` (the likeliest one if empty).

        ImagePreprocessor are data: URLs: `picture` as it was understood, upright and opaque, and
        `heat.image`, transparent where it is cold, to be laid over it.
        """
        if name and name not in self.classes:
            raise RefusedError("unknown_class", f"there is no class {name!r}")
        converted, shown = self._decoder.decode(content, is_shown=True)
        pixels = self._pixels(converted)
        answer = self._answer(pixels)
        name = name or answer["classes"][0]["class"]
        heat, _ = self._maps.heat(pixels[np.newaxis], [self.classes.index(name)])
        picture = to_color(shown)
        painted = encode_image(color_heatmap(heat[0], picture.size))
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

    def _pixels(self, converted):
        try:
            return self._pictures.decode(*converted)
        except UnusableImageError as error:
            raise RefusedError("damaged_image", f"the image {error}") from None

    def _answer(self, pixels):
        (probabilities,) = self._predictor.probabilities(pixels[np.newaxis])
        if not np.isfinite(probabilities).all():
            raise RefusedError("failed", f"the image {NAN_SCORES}")
        order = np.argsort(-probabilities, kind="stable")
        ranking = [
            {"class": self.classes[each], "probability": float(probabilities[each])}
            for each in order
        ]
        multi_label = self._predictor.multi_label
        chosen = choose_classes(probabilities, self.classes, self._threshold, multi_label)
        own = {"found": chosen} if multi_label else {"class": chosen}
        return {**ranking[0], **own, "classes": ranking}


def _url(kind, content):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
