"""A profile as a table, with the bottleneck below it, and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from library.diagnosis.speed import duration
from library.messages import counted
from library.profiling.bottleneck import Context, advise, explain, find_bottleneck
from library.profiling.training_profile import EPOCHS, FEATURES, START, STEP, TrainingProfile

# What each stage is, for the table.
_MEANINGS = {
    "import": "Python, TensorFlow, the devices",
    "set up": "the data, the network",
    "trace": "compile the steps",
    FEATURES: "run the frozen base, once",
    EPOCHS: "make the inputs of each",
    "read": "stored images (or features)",
    "decode": "to pixels of the network's size",
    "augment": "",
    "copy": "into batches, onto the device",
    STEP: "forward and backward pass, update",
    "evaluate": "on the validation split",
    "save": "a snapshot, a checkpoint",
    "other": "",
}


def format_profile(profile: TrainingProfile, context: Context) -> Iterator[str]:
    """Yield the lines of the table, and those that name the bottleneck and what would help."""
    here, planned = profile.seconds, profile.planned_seconds
    yield f"{'':15}{'this profile':>18}{'planned training':>20}{'processor time':>17}"
    rows = [(stage, here[stage], planned[stage]) for stage in here]
    total, whole = sum(here.values()), sum(planned.values())
    for stage, seconds, later in (*rows, ("total", total, whole)):
        own = processor_milliseconds(profile, stage)
        processor = "" if own is None else f"{own:.3f} ms/image"
        cells = f"{seconds:10,.1f} s {seconds / total:5.0%}{later:12,.1f} s {later / whole:5.0%}"
        yield f"{stage:15}{cells}{processor:>17}  {_MEANINGS.get(stage, '')}".rstrip()
    yield ""
    yield _steps_line(profile)
    plan = profile.plan
    yield (
        f"planned training: {counted(plan.steps, 'step')} and "
        f"{counted(plan.evaluations, 'evaluation')}, about {duration(whole)} without early stopping"
    )
    stage = find_bottleneck(planned)
    names = {"start": "start (import, set up, trace)"}
    share = _share_of(planned, stage)
    reasons = "".join(f"; {each}" for each in explain(profile, stage))
    yield f"bottleneck: {names.get(stage, stage)}, {share:.0%} of the planned training{reasons}"
    yield f"to speed it up: {', or '.join(advise(profile, stage, context))}"


def to_json(profile: TrainingProfile, context: Context) -> str:
    """Return the profile, its shares, the bottleneck and the advice as indented JSON."""
    stage = find_bottleneck(profile.planned_seconds)
    data: dict[str, Any] = {
        **asdict(profile),
        "shares": _shares(profile.seconds),
        "planned_shares": _shares(profile.planned_seconds),
        "processor_milliseconds_per_image": {
            each: value
            for each in profile.seconds
            if (value := processor_milliseconds(profile, each)) is not None
        },
        "input_wait_share": profile.steps.wait_share,
        "busy_share": profile.busy_share,
        "fixed_share": profile.fixed_share,
        "augmentations": dict(context.augmentations),
        "bottleneck": stage,
        "advice": advise(profile, stage, context),
    }
    return json.dumps(data, indent=1)


def processor_milliseconds(profile: TrainingProfile, stage: str) -> float | None:
    """Return the processor time of an image in a stage; None if it has none of its own."""
    if stage == STEP:
        return 1000 * profile.ready_steps.processor_seconds / profile.ready_steps.images
    if stage in profile.input_costs:
        return 1000 * profile.input_costs[stage].processor_seconds
    return None


def _shares(seconds: Any) -> dict[str, float]:
    total = sum(seconds.values())
    return {stage: each / total for stage, each in seconds.items()}


def _share_of(seconds: Any, stage: str) -> float:
    shares = _shares(seconds)
    return shares[stage] if stage in shares else sum(shares[each] for each in START)


def _steps_line(profile: TrainingProfile) -> str:
    steps = profile.steps
    return (
        f"steps on {profile.device}: {1000 * steps.per_step:.1f} ms for "
        f"{counted(profile.batch_size, 'image')} ({1 / steps.per_image:,.0f} images/s); "
        f"{1000 * profile.ready_steps.per_image * profile.batch_size:.1f} ms from a ready batch; "
        f"{steps.wait_share:.0%} waiting for input; {profile.cores} cores {profile.busy_share:.0%} "
        "busy"
    )
