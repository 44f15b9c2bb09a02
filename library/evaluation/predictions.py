"""What a network says of each image of a split, in the split's order."""

import itertools
from dataclasses import dataclass

import numpy as np

from library.models.inference import Inference
from library.models.scores import is_multi_label, to_probabilities


@dataclass(frozen=True)
class Predictions:
    """One row for each image.

    `scores` (logits) and `probabilities` are float32 (n, classes). `labels` are int64 (n,), or,
    where `several` classes may be right at once, multi-hot float32 (n, classes). `names` are the
    images' file names as converted, n str.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    names: tuple
    multi_label: bool = False

    def __len__(self):
        return len(self.names)

    @property
    def classes(self):
        """The likeliest class of each image: int64 (n,)."""
        return self.scores.argmax(1)


def predict_batches(network, batches, max_steps=None, *, temperature=1.0, xla=False):
    """Return the Predictions for batches of (images, labels, names), no more than `max_steps`.

    Images are pixels in 0…255, (batch, height, width, channels); names a string tensor (batch,),
    as EvaluationInputs.named_batches in project/inputs.py gives them.
    """
    score = Inference(network, xla=xla)
    multi_label = is_multi_label(network)
    scores, labels, names = [], [], []
    for images, some_labels, some_names in itertools.islice(batches, max_steps):
        scores.append(score(images))
        labels.append(np.asarray(some_labels))
        names += [each.decode("utf-8", "replace") for each in np.asarray(some_names).tolist()]
    if not scores:
        empty = np.zeros((0, network.output_shape[-1]), np.float32)
        return Predictions(
            empty, empty, empty if multi_label else np.zeros(0, np.int64), (), multi_label
        )
    scores = np.concatenate(scores)
    probabilities = np.asarray(to_probabilities(scores, temperature, multi_label=multi_label))
    return Predictions(scores, probabilities, np.concatenate(labels), tuple(names), multi_label)
