"""Classify and explain one image at a time, as JSON objects."""

from dataclasses import replace
from typing import Any, Self

import numpy as np

from library.dataset.images import UnusableImageError
from library.explaining.grad_cam import HeatmapModel
from library.explaining.overlays import color_heatmap, encode_image, to_rgb_image
from library.figures.html import data_url
from library.messages import counted_classes
from library.prediction.calibrate import choose_classes
from library.prediction.predictor import Predictor
from library.prediction.preprocess import NAN_SCORES, ImagePreprocessor
from library.prediction.unknown_score import UnknownDetector
from library.saving.snapshots import Snapshot
from library.serving.decoder import Converted, UploadDecoder
from library.serving.request_error import RequestError


class ServedModel:
    """A snapshot that answers requests. Not thread-safe. A context manager, which ends a process.

    Args:
        snapshot: The snapshot.
        max_megapixels: Larger images are refused.
        threshold: The lowest probability to answer with: see `choose_classes`.
        temperature: What to divide scores by; None: 1.
        detector: Tells unknown images.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        max_megapixels: float,
        threshold: float | None = None,
        temperature: float | None = None,
        detector: UnknownDetector | None = None,
    ) -> None:
        self.classes = snapshot.classes
        self.name: str = snapshot.network.name
        classes = counted_classes(len(self.classes))
        self.description = f"{self.name}, {classes}, {snapshot.folder}"
        if threshold is not None:
            self.description += f", threshold {threshold:.4g}"
        if detector is not None:
            self.description += f", unknown images by {detector.score}"
        self._threshold = threshold
        options = replace(snapshot.image_options, max_pixels=int(max_megapixels * 1e6))
        self._decoder = UploadDecoder(options)
        self._preprocessor = ImagePreprocessor.for_snapshot(snapshot)
        self._predictor = Predictor([snapshot], [temperature or 1.0], detector=detector)
        self._heatmap_model = HeatmapModel(snapshot.network)
        # Compile now, so that the first image takes no longer than others.
        blank = np.zeros((1, *self._preprocessor.image_format.shape), np.uint8)
        self._predictor.probabilities(blank)
        self._heatmap_model.heatmaps(blank, [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._decoder.__exit__(*error)

    def classify(self, content: bytes) -> dict[str, Any]:
        """Return all classes with their probabilities, most likely first.

        `class` and `probability` are those of the most likely class, but `class` is unknown below
        the threshold, and for an image whose `unknown_score` (if there is a detector) is above 0.
        For multi-label, `found` lists all classes from the threshold on.

        Raises:
            RequestError: The image is not usable.
        """
        converted, _ = self._decoder.decode(content)
        return self._classify(self._to_pixels(converted))

    def explain(self, content: bytes, class_name: str = "") -> dict[str, Any]:
        """Return what `classify` does, the image, and a heat map for a class.

        Images are data: URLs: `picture`, upright and opaque, and `heat.image`, which is transparent
        where there is no evidence, to be laid over it.

        Args:
            content: The bytes of an image file.
            class_name: The class to explain; "": the most likely one.

        Raises:
            RequestError: The image is not usable, or there is no such class.
        """
        if class_name and class_name not in self.classes:
            raise RequestError("unknown_class", f"there is no class {class_name!r}")
        converted, shown = self._decoder.decode(content, is_shown=True)
        pixels = self._to_pixels(converted)
        answer = self._classify(pixels)
        class_name = class_name or answer["classes"][0]["class"]
        heatmaps, _ = self._heatmap_model.heatmaps(
            pixels[np.newaxis], [self.classes.index(class_name)]
        )
        image = to_rgb_image(shown)
        form, (_, *edges) = self._preprocessor.image_format, converted
        region = form.fit.region(edges, form.shape[:2])
        overlay = encode_image(color_heatmap(heatmaps[0], image.size, region))
        return {
            **answer,
            "picture": data_url(encode_image(image, "WEBP", quality=85), "image/webp"),
            "heat": {
                "class": class_name,
                "method": self._heatmap_model.method,
                "layer": self._heatmap_model.layer,
                "is_empty": not heatmaps.any(),
                "image": data_url(overlay, "image/png"),
            },
        }

    def _to_pixels(self, converted: Converted) -> np.ndarray:
        try:
            return self._preprocessor.decode(*converted)
        except UnusableImageError as error:
            raise RequestError("damaged_image", f"the image {error}") from None

    def _classify(self, pixels: np.ndarray) -> dict[str, Any]:
        outputs = self._predictor.run(pixels[np.newaxis])
        (probabilities,), unknown = outputs.probabilities, outputs.unknown_scores.tolist()
        if not np.isfinite([*probabilities, *unknown]).all():
            raise RequestError("failed", f"the image {NAN_SCORES}")
        ranking = [
            {"class": self.classes[index], "probability": float(probabilities[index])}
            for index in np.argsort(-probabilities, kind="stable")
        ]
        multi_label = self._predictor.multi_label
        chosen = choose_classes(probabilities, self.classes, self._threshold, multi_label, *unknown)
        key = "found" if multi_label else "class"
        scores = {"unknown_score": unknown[0]} if unknown else {}
        return {**ranking[0], key: chosen, **scores, "classes": ranking}
