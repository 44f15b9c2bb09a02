"""The command preview."""

import logging

from library.configuration.reader import Settings
from project.commands.setup import follow_run, read_data, start_tensorflow

logger = logging.getLogger(__name__)


def preview(settings: Settings) -> None:
    """Draw a batch of training images as the network sees them, as PNG and in TensorBoard."""
    settings, folder = follow_run(settings)
    config = settings.project
    (train_split,) = read_data(config, "train")
    start_tensorflow(config)
    from library.describing.preview import write_preview
    from library.inputs.corruption import explain_read_errors
    from project import assembly, input_assembly

    assembly.seed_everything(settings)
    training = input_assembly.make_training_inputs(settings, train_split)
    with explain_read_errors(training):
        path = write_preview(training, train_split.classes, folder)
    logger.info("In TensorBoard: tensorboard --logdir %s", folder)
    print(path)
