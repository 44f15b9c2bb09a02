"""Settings whose default depends on the data, or on the run that is resumed."""

import logging
from typing import Any

from library.configuration.reader import Settings
from library.configuration.schema import Value
from library.inputs.balance import oversampled_count
from library.messages import counted
from library.saving.checkpoints import read_latest_settings

logger = logging.getLogger(__name__)

# The batch size is the largest power of two within these that makes at least so many steps of an
# epoch: with fewer, a training of few epochs is over before much is learned.
MIN_BATCH_SIZE, MAX_BATCH_SIZE = 4, 32
MIN_STEPS = 16
# Networks with a pretrained base, and the images per class below which these are usually better.
PRETRAINED = ("application", "efficientnet_lite0", "hub", "preset")
FEW_IMAGES = 500
_BATCH_SIZES = ("batch_size", "train_batch_size", "eval_batch_size")
# A new head needs so high a learning rate, however slowly the pretrained layers are changed.
MIN_HEAD_LEARNING_RATE = 1e-3


def choose_batch_size(settings: Settings, split: Any, replicas: int = 1) -> Settings:
    """Return the settings with a batch size for training, if they name none.

    Args:
        settings: The settings.
        split: The training split.
        replicas: Number of replicas that share a batch, evenly and in pairs of images.

    Returns:
        The settings, with the batch sizes of the run's latest checkpoint if it is resumed.
    """
    if settings.project.train_batch_size is not None:
        return settings
    stored = read_resumed(settings)
    if stored.get("train_batch_size"):
        following = [name for name in _BATCH_SIZES if settings.values[name].value is None]
        return settings.with_values(
            {name: Value(stored.get(name), "the resumed run") for name in following}
        )
    is_oversampled = settings.hyperparameters.balance == "oversample"
    examples = oversampled_count(split.class_counts) if is_oversampled else split.examples
    size = MAX_BATCH_SIZE
    while size > MIN_BATCH_SIZE and -(-examples // size) < MIN_STEPS:
        size //= 2
    if size < MAX_BATCH_SIZE:
        logger.info(
            f"batch size {size} instead of {MAX_BATCH_SIZE}, for more steps per epoch of "
            f"{counted(examples, 'image')}; --batch_size sets another"
        )
    if replicas > 1:
        size = max(1, size // (2 * replicas)) * 2 * replicas
    return settings.with_values({"train_batch_size": Value(size, f"for {examples:,} images")})


def choose_head_learning_rate(settings: Settings, scale: float, has_new_head: bool) -> float | None:
    """Return the learning rate of the head, or None if it has that of the other layers.

    Args:
        settings: The settings.
        scale: What `learning_rate_batch_size` multiplies learning rates by.
        has_new_head: Whether the head is new, on a pretrained base that is trained too.
    """
    hparams = settings.hyperparameters
    rate, given = hparams.learning_rate * scale, hparams.head_learning_rate
    if given is None:
        stored = read_resumed(settings)
        # A run that an earlier version began resumes with one learning rate.
        given = stored.get("head_learning_rate")
        if given is None and has_new_head and not stored:
            given = max(rate, MIN_HEAD_LEARNING_RATE) / scale
    return None if given in (None, hparams.learning_rate) else given * scale


def resume_features(settings: Settings) -> Settings:
    """Return the settings without middle_features if a run from before these is resumed."""
    stored = read_resumed(settings)
    if not stored or "middle_features" in stored:
        return settings
    return settings.with_values({"middle_features": Value(False, "the resumed run")})


def log_if_pretrained_is_better(settings: Settings, split: Any) -> None:
    """Log a line if a training from scratch starts with few images per class."""
    config, hparams = settings.project, settings.hyperparameters
    is_pretrained = hparams.model in PRETRAINED and not (
        hparams.model == "application" and hparams.application_weights is None
    )
    if is_pretrained or hparams.checkpoint_path or config.debug or read_resumed(settings):
        return
    images = split.examples // len(split.classes)
    if images < FEW_IMAGES:
        logger.info(
            f"from scratch on {counted(images, 'image')} per class; with fewer than about "
            f"{FEW_IMAGES}, a pretrained network is usually better: --model efficientnet_lite0 "
            "--image_size 224, or --config_set transfer (README.md, step 3)"
        )


def read_resumed(settings: Settings) -> dict[str, Any]:
    """Return the settings of the run's latest checkpoint if it will be resumed, else {}."""
    config = settings.project
    return {} if config.resume == "never" else read_latest_settings(config.model_dir)
