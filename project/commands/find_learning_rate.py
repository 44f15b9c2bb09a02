"""The command find_learning_rate."""

import logging
from pathlib import Path

from library.configuration.reader import Settings
from library.configuration.schema import COMMAND_LINE, Value
from library.dataset.class_checks import check_trainable
from library.errors import if_interrupted
from library.files import write_file
from project.commands.setup import print_result, read_data, start_tensorflow
from project.commands.train import find_cluster

logger = logging.getLogger(__name__)


def find_learning_rate(settings: Settings) -> None:
    """Draw the loss over a rising learning rate, and suggest one. The run stays as it is."""
    # As a new run would start, whatever is in run_dir.
    settings = settings.with_values({"resume": Value("never", COMMAND_LINE)})
    config = settings.project
    with if_interrupted("Nothing was changed."):
        cluster = find_cluster()
        splits = read_data(config, "train", "validation")
        check_trainable(splits[0])
        start_tensorflow(config, cluster)
        from library.describing import range_test
        from library.inputs.corruption import explain_read_errors
        from library.training.progress import run_summary
        from project import assembly

        devices = assembly.start_devices(settings, cluster)
        trainer = assembly.make_trainer(settings, splits, devices)
        logger.info(run_summary(trainer.parts, trainer.inputs, trainer.paths.classes, devices))
        with explain_read_errors(*trainer.inputs):
            found = range_test.find_learning_rate(trainer)
    if not devices.is_chief:
        return
    path = Path(config.run_dir) / "learning_rate.svg"
    write_file(path, found.draw())
    logger.info(
        f"Suggestion: --learning_rate {found.suggested:.1e}, a tenth of that with the lowest loss; "
        f"the loss fell fastest at {found.steepest:.1e}"
    )
    logger.info(f"curve: {path}")
    print_result(
        {
            "suggested": found.suggested,
            "lowest_loss": found.lowest,
            "steepest_descent": found.steepest,
            "curve": str(path),
        }
    )
