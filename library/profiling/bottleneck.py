"""The bottleneck of a training, and what would help, both from the figures of its profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from library.diagnosis.speed import Choices, Speed, advise_inputs, advise_step
from library.profiling.input_costs import AUGMENT, COPY, DECODE, INPUT_STAGES
from library.profiling.training_profile import (
    EPOCHS,
    EVALUATE,
    FEATURES,
    SAVE,
    START,
    STEP,
    TrainingProfile,
)

# From this share of a step on, what does not depend on the batch size is worth a line.
_FIXED_SHARE = 0.5
# With less, a GPU waits for the host to launch its kernels.
_BUSY_GPU = 0.7
# As converted images are larger than what the network takes by default: 384 and 224 pixels.
_SCALE, _LARGER = 384 / 224, 1.25


@dataclass(frozen=True)
class Context:
    """What the advice depends on beside the profile.

    Attributes:
        choices: The settings that decide about speed, and what there is to choose from.
        cache_bytes: What `--cache memory` would hold.
        image_shape: (height, width) of the network's images.
        stored_shape: The mean one of stored images; None: they were not converted.
        input_advice: By stage of the inputs, what speeds it up.
        augmentations: By name, its share in the time of the inputs.
    """

    choices: Choices
    cache_bytes: int
    image_shape: tuple[int, int]
    stored_shape: tuple[int, int] | None = None
    input_advice: Mapping[str, str] = field(default_factory=dict)
    augmentations: Mapping[str, float] = field(default_factory=dict)


def find_bottleneck(seconds: Mapping[str, float]) -> str:
    """Return the stage that takes most of the time; `start` stands for those before the first step.

    First the start, the inputs, the step, the evaluations and saving are compared as a whole; of
    the inputs, it is then the largest stage.
    """
    inputs = {each: seconds.get(each, 0.0) for each in INPUT_STAGES}
    groups = {
        "start": sum(seconds.get(each, 0.0) for each in START),
        "inputs": sum(inputs.values()),
        **{each: seconds.get(each, 0.0) for each in (FEATURES, EPOCHS, STEP, EVALUATE, SAVE)},
    }
    largest = max(groups, key=lambda each: groups[each])
    return max(inputs, key=lambda each: inputs[each]) if largest == "inputs" else largest


def advise(profile: TrainingProfile, stage: str, context: Context) -> list[str]:
    """Return what would make a stage take less of the planned training, the most useful first."""
    if stage == STEP:
        return _advise_step(profile, context.choices)
    if stage in INPUT_STAGES:
        return _advise_inputs(profile, stage, context)
    if stage == "start":
        seconds = profile.seconds
        advised = ["more epochs, or several trainings in one process (--seeds, search): it is once"]
        if context.choices.xla and seconds["trace"] > max(seconds["import"], seconds["set up"]):
            advised.insert(0, "--no-xla, which compiles less")
        return advised
    if stage == FEATURES:
        return ["fewer --cached_views", "a smaller --image_size", "a GPU; it is once per data set"]
    if stage == EPOCHS:
        return ["a smaller --batch_size or more images, so that epochs have more steps"]
    rarely = "evaluating less often, by --epochs_between_evals or --steps_between_evals"
    if stage == EVALUATE:
        return [rarely, "fewer batches, by --max_eval_steps", "a larger --eval_batch_size"]
    return [f"{rarely} (each one saves)", "a faster disk for --run_dir"]


def _advise_step(profile: TrainingProfile, choices: Choices) -> list[str]:
    fixed, gpu = profile.fixed_share, profile.gpu
    is_launching = gpu is not None and gpu.kernels < _BUSY_GPU
    if not is_launching and (fixed is None or fixed < _FIXED_SHARE):
        return advise_step(choices)
    advised = ["a larger --batch_size"]
    if profile.steps_per_execution == 1:
        advised.append("--steps_per_execution 16")
    if gpu is None:
        # On two cores, 1.2 times as fast at batch size 8. XLA makes small convolutions slower.
        advised.append("--intra_op_threads 1 (it changes results by rounding)")
    elif not choices.xla:
        advised.append("--xla")
    return advised


def _advise_inputs(profile: TrainingProfile, stage: str, context: Context) -> list[str]:
    if stage == COPY:
        return ["a smaller --image_size", "larger --prefetch_batches and --prefetch_to_device"]
    advice = context.input_advice.get(stage, "")
    if stage == DECODE and (smaller := _smaller_edge(context)):
        advice = smaller
    elif stage == AUGMENT and context.augmentations:
        name, share = max(context.augmentations.items(), key=lambda each: each[1])
        advice = f"leaving out {name}, {share:.0%} of the inputs' time, or more cores"
    rates = {each: 1 / max(cost.seconds, 1e-9) for each, cost in profile.input_costs.items()}
    speed = Speed(cache_bytes=context.cache_bytes, rates=rates, input_advice=advice)
    return advise_inputs(speed, context.choices)


def _smaller_edge(context: Context) -> str:
    if context.stored_shape is None:
        return ""
    edge = round(_SCALE * max(context.image_shape))
    stored = " x ".join(map(str, context.stored_shape))
    if max(context.stored_shape) < _LARGER * edge:
        return ""
    network = " x ".join(map(str, context.image_shape))
    return (
        f"convert with --max_edge {edge} (stored images have {stored} pixels, the network takes "
        f"{network})"
    )


def explain(profile: TrainingProfile, stage: str) -> list[str]:
    """Return figures that show why a stage takes its time."""
    if stage == STEP and profile.gpu:
        return [f"the GPU runs kernels {profile.gpu.kernels:.0%} of the time"]
    if stage == STEP and (profile.fixed_share or 0) >= _FIXED_SHARE:
        return [f"{profile.fixed_share:.0%} of a step does not depend on the batch size"]
    if stage in INPUT_STAGES:
        return [f"{profile.steps.wait_share:.0%} of the steps' time is waiting for input"]
    return []
