"""The command benchmark_inputs."""

import json

from project.commands.setup import read_data, start_tensorflow


def benchmark_inputs(settings):
    """Measure the input pipeline, stage by stage, and say which one holds the rest back."""
    project = settings.project
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.describing.pipeline_benchmark import measure_stages, tell_stages
    from library.inputs.corruption import naming_damage
    from library.logging import report
    from project import assembly

    training = assembly.make_training_inputs(settings, train_split)
    with naming_damage(training):
        rates = measure_stages(training)
    for line in tell_stages(rates, training.source):
        report(line)
    print(json.dumps({"images_per_second": {name: round(rate) for name, rate in rates.items()}}))
