"""The page of a study: history, importances, parallel coordinates, Pareto front, all trials."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from library.configuration.search_space import Domain
from library.figures.html import inline_svg, read_script, render
from library.figures.training_curves import draw_figure
from library.files import write_file
from library.search.results import StudyResults, describe_value, state_name
from library.search.trials import REASON, RESULT

PAGE = "search.html"
_SIZE = (6.4, 3.4)
_GOOD, _ACCENT, _MUTED = "#2aa085", "#4c8bf5", "#9a9a9a"
# More lines would be one area.
_MAX_LINES = 200
_AXIS_PIXELS, _HEIGHT_PIXELS = 150, 240


def write_page(folder: Path, results: StudyResults, title: str, best_set: str) -> Path:
    """Write the page of a study into the folder of the search, and return its path.

    Args:
        folder: The folder, which has a folder of each trial in `trials/`.
        results: What the study has found.
        title: What was searched.
        best_set: The best set in YAML.
    """
    plan = results.plan
    front = {each.number for each in results.front}
    charts = [inline_svg(_draw_history(results, at)) for at in range(len(results.objectives))]
    if len(results.objectives) > 1:
        charts = [inline_svg(_draw_front(results)), *charts]
    importances = [results.importances(at) for at in range(len(results.objectives))]
    columns = [*dict.fromkeys(name for each in results.trials for name in _metrics_of(each))]
    page = render(
        "library.search",
        PAGE,
        title=title,
        counts=results.state_counts(),
        sampler=plan.sampler,
        pruner=plan.pruner,
        objectives=list(zip(results.objectives, plan.directions, strict=True)),
        best_set=best_set.splitlines(),
        charts=charts,
        importances=[
            (name, [*found.items()])
            for name, found in zip(results.objectives, importances, strict=True)
            if found
        ],
        parallel=_parallel_coordinates(results),
        axis_pixels=_AXIS_PIXELS,
        height_pixels=_HEIGHT_PIXELS,
        settings=[*plan.domains],
        columns=columns,
        rows=[
            {
                "number": each.number,
                "is_best": each.number in front,
                "state": state_name(each),
                "settings": [
                    describe_value(value)
                    for value in (
                        results.parameters_of(each) or dict.fromkeys(plan.domains)
                    ).values()
                ],
                "metrics": [describe_value(_metrics_of(each).get(name, "-")) for name in columns],
                "reason": each.user_attrs.get(REASON, ""),
            }
            for each in results.trials
        ],
        script=read_script("library.figures", "tables.js"),
    )
    write_file(folder / PAGE, page)
    return folder / PAGE


def _metrics_of(trial: FrozenTrial) -> Mapping[str, Any]:
    return trial.user_attrs.get(RESULT, {})


def _draw_history(results: StudyResults, objective: int) -> bytes:
    """Draw an objective's values by trial, and the best so far."""
    choose = min if results.plan.directions[objective] == "minimize" else max
    complete = [(each.number, each.values[objective]) for each in results.complete]
    pruned = [
        (each.number, each.values[0])
        for each in results.trials
        if state_name(each) == "pruned" and each.values
    ]
    best: list[float] = []
    for _, value in complete:
        best.append(choose([*best[-1:], value]))

    def draw(axes: Any, name: str) -> None:
        if pruned:
            axes.scatter(*zip(*pruned, strict=True), marker="x", color=_MUTED, label="pruned")
        if complete:
            axes.scatter(*zip(*complete, strict=True), s=14, color=_ACCENT, label="complete")
            numbers = [number for number, _ in complete]
            axes.step(numbers, best, where="post", color=_GOOD, label="best so far")
        axes.set_title(name, color=_MUTED, parse_math=False)
        if complete:
            axes.set_ylim(*_focus([value for _, value in complete]))

    return draw_figure((results.objectives[objective],), _SIZE, draw, "trial")


def _focus(values: Sequence[float]) -> tuple[float, float]:
    """Return limits that outliers do not stretch: those of the middle of the values, and more."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    margin = max(high - low, 1e-6 * abs(high), 1e-12)
    return max(ordered[0], low - margin) - 0.08 * margin, min(
        ordered[-1], high + margin
    ) + 0.08 * margin


def _draw_front(results: StudyResults) -> bytes:
    """Draw the second objective over the first, with the Pareto front."""
    points = [tuple(each.values) for each in results.complete]
    front = [tuple(each.values) for each in results.front]

    def draw(axes: Any, name: str) -> None:
        if points:
            axes.scatter(*zip(*points, strict=True), s=14, color=_ACCENT, label="complete")
            axes.plot(*zip(*front, strict=True), marker="o", color=_GOOD, label="Pareto front")
        axes.set_title(name, color=_MUTED, parse_math=False)

    first, second = results.objectives
    return draw_figure((f"{second} by {first}",), _SIZE, draw, first)


def _parallel_coordinates(results: StudyResults) -> dict[str, Any] | None:
    """Return axes and lines, with positions of 0 (bottom) to 1; None without complete trials."""
    trials = results.complete[-_MAX_LINES:]
    if not trials:
        return None
    values = [each.values[0] for each in trials]
    low, high = min(values), max(values)
    is_lower_better = results.plan.directions[0] == "minimize"
    axes = [(name, _ticks(domain)) for name, domain in results.plan.domains.items()]
    axes.append((results.objectives[0], [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]))
    lines = []
    for trial, value in zip(trials, values, strict=True):
        found = results.parameters_of(trial)
        heights = [_height(domain, found[name]) for name, domain in results.plan.domains.items()]
        share = (value - low) / (high - low) if high > low else 1.0
        goodness = 1 - share if is_lower_better else share
        line = {"number": trial.number, "value": f"{value:.4g}", "goodness": goodness}
        lines.append({**line, "heights": [*heights, share], "is_best": trial in results.front})
    # The best are drawn last, over the others.
    lines.sort(key=lambda line: (line["is_best"], line["goodness"]))
    return {"axes": axes, "lines": lines}


def _ticks(domain: Domain) -> list[tuple[float, str]]:
    if domain.choices:
        return [(_height(domain, each), describe_value(each)) for each in domain.choices]
    return [(0.0, describe_value(domain.low)), (1.0, describe_value(domain.high))]


def _height(domain: Domain, value: Any) -> float:
    if domain.choices:
        at = next(n for n, each in enumerate(domain.choices) if each is value or each == value)
        return at / max(len(domain.choices) - 1, 1)
    low, high = domain.low, domain.high
    if domain.is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
