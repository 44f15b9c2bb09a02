"""Why a network answers as it does about some pictures: all there is to show of it."""

from dataclasses import dataclass
from itertools import islice
from math import ceil

import numpy as np

from library.dataset.images import UnusableImageError
from library.errors import DataError, printable, reason_of
from library.explaining.feature_maps import draw_layers
from library.explaining.grad_cam import HeatMaps
from library.explaining.neighbors import find_neighbors, make_embedding
from library.figures.kernels import first_kernels
from library.inputs.corruption import explain_read_errors
from library.messages import counted
from library.models.layer_graph import flatten_network
from library.models.scores import is_multi_label, to_probabilities


@dataclass(frozen=True)
class Picture:
    """A picture as the network sees it, uint8 (height, width, 1 or 3); its classes, if known."""

    name: str
    pixels: np.ndarray
    truths: tuple | None = None


@dataclass(frozen=True)
class Answer:
    """What the network says of one Picture, and why."""

    picture: Picture
    # Class names with their probabilities, the likeliest first.
    ranking: tuple
    # {class name: heat (rows, columns) from 0 to 1}: the likeliest class, and the true ones.
    heats: dict
    # Neighbors with their class names: [(Neighbor, names)].
    nearest: tuple

    @property
    def is_right(self):
        """Whether the likeliest class is a true one; None where nobody knows."""
        return self.picture.truths and self.ranking[0][0] in self.picture.truths


@dataclass(frozen=True)
class Explanation:
    """Answers, and what the network's layers make of the first picture."""

    answers: tuple
    # How heat was found, and the layer whose maps were weighed (None: none).
    method: str
    layer: str | None
    # The first layer's kernels, (height, width, in, out), or None.
    kernels: np.ndarray | None
    layers: tuple


def explain_pictures(network, classes, pictures, training=None, *, nearest=6, layer=None):
    """Return the Explanation of some Pictures.

    `training` are the EvaluationInputs to find the nearest images in, or None. `layer` names the
    layer whose maps are weighed (None: the last one that has any). Raises ChoiceError for an
    unknown one, DataError where the training images are damaged.
    """
    opened = flatten_network(network)
    maps = HeatMaps(network, layer, opened)
    pixels = np.stack([each.pixels for each in pictures])
    neighbors = [[] for _ in pictures]
    if training is not None:
        embed = make_embedding(network)
        with explain_read_errors(training):
            batches = training.named_batches()
            neighbors = find_neighbors(embed(pixels), batches, embed, nearest)
    answers = [
        _answer(maps, classes, picture, is_multi_label(network), near)
        for picture, near in zip(pictures, neighbors, strict=True)
    ]
    return Explanation(
        answers=tuple(answers),
        method=maps.method,
        layer=maps.layer,
        kernels=first_kernels(network),
        layers=tuple(draw_layers(opened, pictures[0].pixels)),
    )


def choose_pictures(inputs, classes, count):
    """Return up to `count` Pictures of EvaluationInputs, of as many classes as may be.

    Those that come first of each class. Raises DataError where they are damaged.
    """
    with explain_read_errors(inputs):
        return _first_of_each(inputs.named_batches(), classes, count)


def _first_of_each(batches, classes, count):
    most = ceil(count / len(classes))
    chosen, taken = [], np.zeros(len(classes), int)
    for images, labels, names in batches:
        for image, label, name in zip(
            np.asarray(images), np.asarray(labels), np.asarray(names), strict=True
        ):
            kind = label if np.ndim(label) == 0 else label.argmax()
            if taken[kind] < most:
                taken[kind] += 1
                truths = class_names(label, classes)
                chosen.append(Picture(name.decode("utf-8", "replace"), image, truths))
            if len(chosen) == count:
                return chosen
    return chosen


def class_names(label, classes):
    """Return the names for a class id, or for 0 and 1 for each class."""
    numbers = [int(label)] if np.ndim(label) == 0 else np.flatnonzero(label)
    return tuple(classes[each] for each in numbers)


def _answer(maps, classes, picture, multi_label, neighbors):
    pixels = picture.pixels[np.newaxis]
    # The scores first, because they tell whose heat is wanted.
    _, scores = maps.heat(pixels, [0])
    (probabilities,) = np.asarray(to_probabilities(scores, multi_label=multi_label))
    order = np.argsort(-probabilities, kind="stable")
    ranking = tuple((classes[each], float(probabilities[each])) for each in order)
    wanted = dict.fromkeys((ranking[0][0], *(picture.truths or ())))
    heats = {name: maps.heat(pixels, [classes.index(name)])[0][0] for name in wanted}
    nearest = tuple((each, class_names(each.label, classes)) for each in neighbors)
    return Answer(picture, ranking, heats, nearest)


def read_pictures(files, prepare, count, report):
    """Return a Picture for each of the first `count` LabeledFiles that is a usable image.

    `prepare` gives the network's pixels from a file's bytes. Raises DataError if none is usable.
    """
    files = iter(files)
    if pictures := list(islice(_usable(files, prepare, report), count)):
        if next(files, None) is not None:
            report(f"stopping after {counted(count, 'image')}; --explain_images takes more")
        return pictures
    raise DataError("none of the files is an image that can be used")


def _usable(files, prepare, report):
    for file in files:
        try:
            yield Picture(file.name, prepare(file.location.read()))
        except UnusableImageError as error:
            report(f"{printable(file.name)} {error}: left out")
        except MemoryError:
            report(f"{printable(file.name)} needs too much memory to decode: left out")
        except (OSError, ValueError) as error:
            report(f"{printable(file.name)} can't be read: {reason_of(error)}: left out")
