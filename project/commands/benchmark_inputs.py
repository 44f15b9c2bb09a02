"""The command benchmark_inputs."""

import json

from project.commands.setup import read_data, start_tensorflow


def benchmark_inputs(settings):
    """Measure the input pipeline, stage by stage, and say which one holds the rest back."""
    project = settings.project
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.describing.pipeline_benchmark import format_stages, measure_stages
    from library.inputs.corruption import explain_read_errors
    from library.logging import report
    from project import assembly

    training = assembly.make_training_inputs(settings, train_split)
    with explain_read_errors(training):
        rates = measure_stages(training)
    for line in format_stages(rates, training.source):
        report(line)
    print(json.dumps({"images_per_second": {name: round(rate) for name, rate in rates.items()}}))
