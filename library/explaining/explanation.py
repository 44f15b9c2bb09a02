"""Explanations of a network's predictions for some images."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil

import keras
import numpy as np

from library.dataset.sources.base import LabeledFile
from library.errors import DataError, SettingsError, printable
from library.explaining.feature_maps import LayerOutput, draw_layers
from library.explaining.grad_cam import HeatmapModel
from library.explaining.layer_graph import flatten_network
from library.explaining.neighbors import Neighbor, find_neighbors, make_embed
from library.figures.kernels import first_kernels
from library.inputs.corruption import explain_read_errors
from library.inputs.interfaces import EvaluationInputs
from library.messages import counted
from library.models.scores import is_multi_label, to_probabilities
from library.prediction.preprocess import ImagePreprocessor, preprocess_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputImage:
    """An image as the network sees it.

    Attributes:
        name: File name.
        pixels: uint8 (height, width, 1 or 3).
        true_classes: Names of its classes; None if unknown.
    """

    name: str
    pixels: np.ndarray
    true_classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ImageExplanation:
    """A prediction for one image, and the evidence for it.

    Attributes:
        image: The image.
        ranking: (class, probability), the most likely first.
        heatmaps: Class → heatmap (rows, columns) in [0, 1]: of the predicted class and the true
            ones.
        neighbors: Training images with their classes, the nearest first.
    """

    image: InputImage
    ranking: tuple[tuple[str, float], ...]
    heatmaps: dict[str, np.ndarray]
    neighbors: tuple[tuple[Neighbor, tuple[str, ...]], ...]

    @property
    def is_correct(self) -> bool | None:
        """Whether the predicted class is a true one; None if those are unknown."""
        true_classes = self.image.true_classes
        return None if true_classes is None else self.ranking[0][0] in true_classes


@dataclass(frozen=True)
class Explanation:
    """Explanations of several images, and what the layers make of the first one.

    Attributes:
        images: One for each image.
        method: How the heatmaps were computed: GRAD_CAM, HIRES_CAM or OCCLUSION.
        layer: The layer whose feature maps they are of; None for occlusion.
        kernels: The first layer's kernels, (height, width, in, out), if it has any.
        layers: Every layer's output for the first image.
    """

    images: tuple[ImageExplanation, ...]
    method: str
    layer: str | None
    kernels: np.ndarray | None
    layers: tuple[LayerOutput, ...]


def explain_images(
    network: keras.Model,
    classes: Sequence[str],
    images: Sequence[InputImage],
    training: EvaluationInputs | None = None,
    *,
    neighbor_count: int = 0,
    layer: str | None = None,
) -> Explanation:
    """Explain a network's predictions.

    Args:
        network: A model from pixels in [0, 255] to logits.
        classes: Class names in label order.
        images: At least one.
        training: The training split, in which neighbors are found; None: no neighbors, as if the
            network has no embedding.
        neighbor_count: Neighbors per image.
        layer: Name of the layer whose feature maps are weighted; None: the last one with any.

    Raises:
        ChoiceError: There is no such layer.
        DataError: Training images are damaged.
    """
    flat_network = flatten_network(network)
    heatmap_model = HeatmapModel(network, layer, flat_network)
    neighbors: list[list[Neighbor]] = [[] for _ in images]
    embed = None
    if training is not None:
        try:
            embed = make_embed(network)
        except SettingsError as error:
            logger.info(f"without the nearest training images: {error}")
    if training is not None and embed is not None:
        queries = embed(np.stack([each.pixels for each in images]))
        with explain_read_errors(training):
            neighbors = find_neighbors(queries, training.named_batches(), embed, neighbor_count)
    multi_label = is_multi_label(network)
    return Explanation(
        images=tuple(
            _explain_image(heatmap_model, classes, image, near, multi_label)
            for image, near in zip(images, neighbors, strict=True)
        ),
        method=heatmap_model.method,
        layer=heatmap_model.layer,
        kernels=first_kernels(network),
        layers=tuple(draw_layers(flat_network, images[0].pixels)),
    )


def choose_images(inputs: EvaluationInputs, classes: Sequence[str], count: int) -> list[InputImage]:
    """Return the first images of as many classes of a split as possible.

    Args:
        inputs: The split.
        classes: Class names in label order.
        count: Maximum number of images.

    Raises:
        DataError: Images are damaged.
    """
    with explain_read_errors(inputs):
        return list(islice(_first_of_each_class(inputs, classes, count), count))


def load_images(
    files: Iterable[LabeledFile], preprocessor: ImagePreprocessor, count: int
) -> list[InputImage]:
    """Return the first usable images among files, and log the others.

    Args:
        files: Files that should be images.
        preprocessor: Prepares them for the network.
        count: Maximum number of images.

    Raises:
        DataError: None of the files is a usable image.
    """
    files = iter(files)
    images = list(islice(_usable_images(files, preprocessor), count))
    if not images:
        raise DataError("none of the files is a usable image")
    if next(files, None) is not None:
        logger.info(
            f"Explaining the first {counted(count, 'image')} only; raise --explain_images for more."
        )
    return images


def class_names(label: int | Sequence[float], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names for a class id, or for a multi-hot label."""
    class_ids = np.atleast_1d(label) if np.ndim(label) == 0 else np.flatnonzero(label)
    return tuple(classes[each] for each in class_ids.tolist())


def _explain_image(
    heatmap_model: HeatmapModel,
    classes: Sequence[str],
    image: InputImage,
    neighbors: list[Neighbor],
    multi_label: bool,
) -> ImageExplanation:
    pixels = image.pixels[np.newaxis]
    # The scores come first, because the heatmap is that of the predicted class.
    _, scores = heatmap_model.heatmaps(pixels, [0])
    (probabilities,) = np.asarray(to_probabilities(scores, multi_label=multi_label))
    order = np.argsort(-probabilities, kind="stable")
    ranking = tuple((classes[each], float(probabilities[each])) for each in order)
    shown = dict.fromkeys((ranking[0][0], *(image.true_classes or ())))
    heatmaps = {name: heatmap_model.heatmaps(pixels, [classes.index(name)])[0][0] for name in shown}
    named = tuple((each, class_names(each.label, classes)) for each in neighbors)
    return ImageExplanation(image, ranking, heatmaps, named)


def _first_of_each_class(
    inputs: EvaluationInputs, classes: Sequence[str], count: int
) -> Iterator[InputImage]:
    most, taken = ceil(count / len(classes)), np.zeros(len(classes), int)
    for batch in inputs.named_batches():
        for pixels, label, name in zip(*map(np.asarray, batch), strict=True):
            class_id = label if np.ndim(label) == 0 else label.argmax()
            if taken[class_id] < most:
                taken[class_id] += 1
                true_classes = class_names(label, classes)
                yield InputImage(name.decode("utf-8", "replace"), pixels, true_classes)


def _usable_images(
    files: Iterable[LabeledFile], preprocessor: ImagePreprocessor
) -> Iterator[InputImage]:
    for file in files:
        pixels, reason = preprocess_file(preprocessor, file)
        if pixels is None:
            logger.info(f"{printable(file.name)} {reason}; skipped")
        else:
            yield InputImage(file.name, pixels)
