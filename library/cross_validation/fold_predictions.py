"""The predictions of a fold's best network for the images of the fold."""

from pathlib import Path

import numpy as np

from library.errors import DivergedError
from library.evaluation.predictions import Predictions, late_bar, predict_batches
from library.files import current_folder
from library.inputs.examples import ExampleSource
from library.models.scores import is_multi_label
from library.saving.snapshots import read_snapshot
from library.training.trainer import Trainer


def predict_fold(trainer: Trainer) -> Predictions:
    """Return the predictions of a trainer's best snapshot for its validation split.

    Of a base that was frozen to the end, the cached features are used once more: the base doesn't
    run again.

    Raises:
        CheckpointError: The snapshot is damaged.
        DivergedError: The network returns NaN or infinite scores.
    """
    validation, folder = trainer.inputs.validation, Path(trainer.paths.best)
    cached = trainer.parts.cached_features
    if cached and cached.is_frozen_to_the_end:
        best = trainer.state.best or {}
        if trainer.parts.ema or best.get("step") != trainer.state.step:
            trainer.parts.network.load_weights(current_folder(folder) / "model.keras")
        inputs = trainer.step_inputs
        if inputs is trainer.inputs:  # There was nothing left to train.
            inputs = cached.make_inputs()
        outputs = [
            (cached.head(features, training=False).numpy(), labels.numpy())
            for features, labels in inputs.validation.batches()
        ]
        scores, labels = (np.concatenate(each) for each in zip(*outputs, strict=True))
        multi_label = is_multi_label(trainer.parts.network)
        labels = labels.astype(bool if multi_label else np.int64)
        predictions = Predictions(scores, labels, _read_names(validation.source), multi_label)
    else:
        network = read_snapshot(folder).network
        batches = late_bar(
            validation.named_batches(), "predictions", " batches", validation.batches_per_epoch
        )
        predictions = predict_batches(network, batches)
    if not np.isfinite(predictions.scores[:]).all():
        raise DivergedError(f"the network in {folder} returns NaN or infinite scores")
    return predictions


def _read_names(source: ExampleSource) -> tuple[str, ...]:
    """Return the file names of all examples, in order, without decoding an image."""
    batches = source.keys().enumerate().map(source.name).batch(1 << 12)
    names = np.concatenate([each.numpy() for each in batches])
    return tuple(each.decode("utf-8", "replace") for each in names)
