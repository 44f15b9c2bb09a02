"""The command benchmark_inputs."""

import logging
from pathlib import Path

from library.configuration.reader import Settings
from project.commands.setup import follow_run, print_result, read_data, start_tensorflow

logger = logging.getLogger(__name__)


def benchmark_inputs(settings: Settings) -> None:
    """Measure each stage of the input pipeline, and name the bottleneck."""
    settings, folder = follow_run(settings)
    config = settings.project
    (train_split,) = read_data(config, "train")
    start_tensorflow(config)
    from library.describing.pipeline_benchmark import (
        format_stages,
        measure_stages,
        read_training_rate,
    )
    from library.inputs.corruption import explain_read_errors
    from project import input_assembly

    training = input_assembly.make_training_inputs(settings, train_split)
    with explain_read_errors(training):
        rates = measure_stages(training)
    is_run = folder == Path(config.run_dir)
    trained = read_training_rate(folder / "history.csv") if is_run else None
    for line in format_stages(rates, training.source, trained):
        logger.info(line)
    print_result({"images_per_second": {name: round(rate) for name, rate in rates.items()}})
