"""Fit what tells unknown images: without any of them, to a share of the validation images.

What a pass over the training and the validation split finds is kept in a file beside the run, and
belongs to the networks that it names, so that later commands need neither split. The file is an
.npz: `header` (UTF-8 JSON: format, networks, score), `bank` and `validation_scores`.
"""

import json
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.errors import DataError, DivergedError, reason_of
from library.evaluation.evaluate import warn_on_error
from library.evaluation.predictions import late_bar
from library.files import new_file
from library.inputs.corruption import explain_read_errors
from library.messages import counted
from library.prediction.image_outputs import ImageOutputs, collect_image_outputs
from library.prediction.neighbor_index import normalize
from library.prediction.predictor import Predictor
from library.prediction.unknown_score import NEIGHBOR, ScoreName, UnknownDetector
from library.saving.snapshots import Snapshot

# The largest number of embeddings that a detector holds, which make an export larger. With all
# 4,000 of the sample, areas under the ROC curve change by 0.02, up or down (benchmarks/unknown.py).
BANK_SIZE = 1000
_FORMAT = "unknown images, version 1"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnknownFit:
    """What the data says about a score, whatever share of images may be called unknown.

    Attributes:
        networks: Which networks it belongs to, as `describe_networks` returns it.
        score: See UnknownDetector.
        bank: The same.
        validation_scores: Of each validation image, float32 (n,), ascending.
    """

    networks: list[str]
    score: ScoreName
    bank: np.ndarray
    validation_scores: np.ndarray

    def make_detector(self, rate: float, temperature: float | None = None) -> UnknownDetector:
        """Return a detector that calls at most a share of the validation images unknown.

        Args:
            rate: The share, from 0 to 1.
            temperature: What the network's logits have been divided by; None: 1.
        """
        scores = self.validation_scores
        # The small number makes up for products such as 0.29 * 100, which is below 29.
        allowed = int(rate * len(scores) + 1e-9)
        threshold = float(scores[max(0, len(scores) - 1 - allowed)])
        alarms = counted(int((scores > threshold).sum()), "validation image")
        images = counted(len(self.bank), "training image")
        compared = f", neighbor {NEIGHBOR} of {images}" if self.bank.size else ""
        logger.info(
            f"unknown images: score {self.score}{compared}; threshold {threshold:.4g}, above which "
            f"are {alarms} of {len(scores):,}"
        )
        unit = float(scores.std()) or 1.0
        return UnknownDetector(self.score, threshold, unit, self.bank, temperature or 1.0)


def describe_networks(snapshot: Snapshot) -> list[str]:
    """Return the hashes of a snapshot's networks, and the number of views, as texts."""
    hashes = [each.sha256 for each in snapshot.members or (snapshot,)]
    return [*hashes, f"{snapshot.views} views"]


def fit_unknown(
    snapshot: Snapshot, score: ScoreName, training: Any, validation: Any, *, xla: bool = False
) -> UnknownFit:
    """Run a network on the training split, if the score needs it, and on the validation split.

    Args:
        snapshot: One snapshot, or several that were combined.
        score: See UnknownDetector.
        training: The training split, as EvaluationPipeline of project/inputs.py.
        validation: The validation split, likewise.
        xla: Compile the network with XLA.

    Raises:
        DataError: An image can't be read, or a split is empty.
        DivergedError: The network returns NaN or infinite values.
        SettingsError: The network has no embedding.
    """
    bank = np.zeros((0, 0), np.float32)
    if score == "neighbors":
        outputs = collect_image_outputs(snapshot, training, with_embeddings=True, xla=xla)
        bank = choose_bank(outputs)
    predictor = Predictor([snapshot], detector=UnknownDetector(score, bank=bank), xla=xla)
    with explain_read_errors(validation):
        batches = late_bar(
            validation.named_batches(), "scores", " batches", validation.batches_per_epoch
        )
        found = [predictor.run(images).unknown_scores for images, *_ in batches]
    scores = np.sort(np.concatenate([np.zeros(0, np.float32), *found]))
    if not len(scores):
        raise DataError("the validation split is empty: there is nothing to fit unknown_rate to")
    if not np.isfinite(scores).all():
        raise DivergedError(
            "the network returns NaN or infinite scores: it has diverged; choose an earlier "
            "--checkpoint"
        )
    return UnknownFit(describe_networks(snapshot), score, bank, scores)


def choose_bank(outputs: ImageOutputs, size: int = BANK_SIZE) -> np.ndarray:
    """Return embeddings of some images, as many of each class as possible, of length 1.

    Args:
        outputs: Those of the training images; of multi-label ones, any may be chosen.
        size: How many to choose at most.
    """
    order = np.random.default_rng(0).permutation(len(outputs))
    labels = np.zeros(len(order), int) if outputs.is_multi_label else outputs.labels[order]
    # The place of each image among those of its class: all first ones are chosen before the second.
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    places = np.empty(len(order), int)
    places[by_class] = np.arange(len(order)) - starts
    chosen = np.sort(order[np.argsort(places, kind="stable")[:size]])
    assert outputs.embeddings is not None
    return normalize(outputs.embeddings[chosen]).astype(np.float32)


def write_unknown_fit(path: Path, fit: UnknownFit) -> None:
    """Write a file, whole or not at all; log a warning if that fails: it saves only time."""
    header = _header_of(fit.networks, fit.score)
    with warn_on_error(path), new_file(path) as file:
        np.savez(
            file,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            bank=fit.bank,
            validation_scores=fit.validation_scores,
        )


def _header_of(networks: list[str], score: ScoreName) -> dict[str, Any]:
    """Return what a file must say to be of use."""
    return {"format": _FORMAT, "networks": networks, "score": score, "neighbor": NEIGHBOR}


def read_unknown_fit(path: Path, snapshot: Snapshot, score: ScoreName) -> UnknownFit | None:
    """Return what the file holds, or None if it is absent, damaged or of other networks."""
    networks = describe_networks(snapshot)
    wanted = _header_of(networks, score)
    try:
        # NumPy would leave a file open whose archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if json.loads(arrays["header"].tobytes()) != wanted:
                return None
            bank, scores = arrays["bank"], arrays["validation_scores"]
        for each, dimensions in ((bank, 2), (scores, 1)):
            if each.dtype != np.float32 or each.ndim != dimensions or not np.isfinite(each).all():
                raise ValueError(f"an array is {each.dtype} {each.shape}, or not finite")
        if not len(scores) or (len(bank) == 0) == (score == "neighbors"):
            raise ValueError("an array is empty")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        logger.warning(f"{path} is damaged, and is made again: {reason_of(error)}")
        return None
    return UnknownFit(networks, score, bank, scores)
