"""The command evaluate."""

import json
import sys
from pathlib import Path

from library.messages import counted
from project.commands.setup import find_validation, read_data, start_tensorflow


def evaluate(settings):
    """Measure a stored network on a split: JSON for machines, a table and a page for people."""
    project = settings.project
    split_name = "validation" if project.validate_only else project.split
    (split,) = read_data(project, split_name)
    validation_split = split if split_name == "validation" else find_validation(project)
    start_tensorflow(project)
    from library.evaluation.table import format_metrics
    from library.logging import report
    from library.reporting.evaluation_files import (
        EVALUATION,
        describe_scope,
        results_of,
        warn_on_error,
        write_evaluation,
    )
    from project import load_network

    stored = load_network.read_chosen_snapshot(settings)
    inputs = load_network.make_inputs_for(stored, settings, split)
    validation = inputs
    if validation_split is not split:
        validation = validation_split and load_network.make_inputs_for(
            stored, settings, validation_split
        )
    judgment = load_network.evaluate_snapshot(settings, stored, inputs, validation)
    for line in format_metrics(judgment.measures):
        report(line)
    is_own = load_network.is_own_data(project)
    results = results_of(stored, judgment, split, data_dir=project.data_dir, is_own_data=is_own)
    report(
        f"{split_name} accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f}, "
        + "; ".join(
            (counted(results["images"], "image"), _of(project, results), *describe_scope(results))
        )
    )
    if not sys.stdout.isatty():  # At a terminal, so long a line would bury the table.
        print(json.dumps(results, allow_nan=False))
    stem = project.validation_name or load_network.name_results(project, results)
    known = {each.name: each for each in (split, validation_split) if each}
    run_dir = None if project.checkpoint else project.run_dir
    with warn_on_error("the report"):
        write_evaluation(
            Path(project.run_dir, EVALUATION, stem),
            stored,
            inputs,
            judgment,
            tuple(known.values()),
            results,
            run_dir=run_dir,
        )


def _of(project, results):
    """Say which network was measured."""
    if project.ensemble:
        return f"ensemble: {', '.join(project.ensemble)}"
    kind = "snapshot" if project.checkpoint else "best snapshot"
    return f"{kind}: {results['snapshot']}, epoch {results['epoch']}"
