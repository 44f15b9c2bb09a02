"""The predictions of a fold's best network for the images of the fold, with their embeddings."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from library.errors import DivergedError, SettingsError
from library.evaluation.predictions import Predictions, late_bar
from library.files import current_folder
from library.inputs.examples import ExampleSource
from library.models.features import split_at_base
from library.models.inference import Inference
from library.models.scores import is_multi_label
from library.prediction.embedding import with_embedding
from library.saving.snapshots import read_snapshot
from library.training.trainer import Trainer


class FoldOutputs(NamedTuple):
    """Predictions of n images, and their embeddings, float32 (n, size); None without any."""

    predictions: Predictions
    embeddings: np.ndarray | None


def predict_fold(trainer: Trainer) -> FoldOutputs:
    """Return the outputs of a trainer's best snapshot for its validation split.

    Of a base that was frozen to the end, the cached features are used once more: the base doesn't
    run again.

    Raises:
        CheckpointError: The snapshot is damaged.
        DivergedError: The network returns NaN or infinite values.
    """
    validation, folder = trainer.inputs.validation, Path(trainer.paths.best)
    cached = trainer.parts.cached_features
    if cached and cached.is_frozen_to_the_end:
        if values := trainer.best_snapshot.head_values:
            for variable, value in zip(cached.head.variables, values, strict=True):
                variable.assign(value)
        else:
            trainer.parts.network.load_weights(current_folder(folder) / "model.keras")
        inputs = trainer.step_inputs
        if inputs is trainer.inputs:  # There was nothing left to train.
            inputs = cached.make_inputs()
        _, head = split_at_base(_join_outputs(trainer.parts.network)) or (None, cached.head)
        batches = [
            (head(features, training=False).numpy(), labels.numpy())
            for features, labels in inputs.validation.batches()
        ]
        names = _read_names(validation.source)
    else:
        infer = Inference(_join_outputs(read_snapshot(folder).network))
        batches, texts = [], []
        for images, labels, some in late_bar(
            validation.named_batches(), "predictions", " batches", validation.batches_per_epoch
        ):
            batches.append((infer(images), labels.numpy()))
            texts.append(some.numpy())
        names = _decode(texts)
    outputs, labels = (np.concatenate(each) for each in zip(*batches, strict=True))
    if not np.isfinite(outputs).all():
        raise DivergedError(f"the network in {folder} returns NaN or infinite values")
    classes, multi_label = len(trainer.paths.classes), is_multi_label(trainer.parts.network)
    labels = labels.astype(bool if multi_label else np.int64)
    predictions = Predictions(outputs[:, :classes], labels, names, multi_label)
    return FoldOutputs(predictions, outputs[:, classes:] if outputs.shape[1] > classes else None)


def _join_outputs(network: keras.Model) -> keras.Model:
    """Return a network whose outputs are the scores and, if there is one, the embedding."""
    try:
        both = with_embedding(network)
    except SettingsError:
        return network
    scores, embedding = (keras.ops.cast(each, "float32") for each in both.output)
    return keras.Model(both.input, keras.ops.concatenate([scores, embedding], axis=-1))


def _read_names(source: ExampleSource) -> tuple[str, ...]:
    """Return the file names of all examples, in order, without decoding an image."""
    batches = source.keys().enumerate().map(source.name).batch(1 << 12)
    return _decode([each.numpy() for each in batches])


def _decode(names: list[np.ndarray]) -> tuple[str, ...]:
    return tuple(each.decode("utf-8", "replace") for each in np.concatenate(names))
