"""Train for some seconds, evaluate and save, and note what each stage took."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

from library.dataset.worker_pool import available_cores
from library.describing.pipeline_benchmark import Cost, measure_cost
from library.profiling.base_features import base_seconds, blank_inputs
from library.profiling.gpu_trace import GpuShares, trace_gpus
from library.profiling.input_costs import INPUT_STAGES, READ, measure_input_costs
from library.profiling.stage_clock import StageClock
from library.profiling.step_times import StepTimes, TrainingSteps, ready_calls, time_steps
from library.saving.snapshots import write_snapshot
from library.training.trainer import SECONDS_UNSAVED, Trainer

# Stages in the order in which they are shown. Those of START happen once.
START = ("import", "set up", "trace")
FEATURES, EPOCHS, STEP = "cache features", "begin epochs", "step"
EVALUATE, SAVE, OTHER = "evaluate", "save", "other"
STAGES = (*START, FEATURES, EPOCHS, *INPUT_STAGES, STEP, EVALUATE, SAVE, OTHER)
# A ready batch of an n-th of the size shows what of a step does not depend on its size.
_PART = 4
# Seconds of steps in a trace of a GPU, which slows them down.
_TRACED_SECONDS = 0.5


@dataclass(frozen=True)
class Budget:
    """Seconds for each part of a profile; a call that takes longer is finished."""

    steps: float = 4.0
    ready_steps: float = 1.5
    input_stage: float = 0.8
    evaluation: float = 2.0
    features: float = 3.0


@dataclass(frozen=True)
class Plan:
    """The training that the settings plan, without early stopping."""

    steps: int
    epochs: float
    evaluations: int


@dataclass(frozen=True)
class TrainingProfile:
    """Where the time of a training goes.

    Attributes:
        device: What trains: `the CPU`, `one GPU`, ….
        cores: Cores that this process may use.
        batch_size: Images per step.
        steps_per_execution: Steps per call.
        seconds: Wall time by stage, of the profiled run; the sum is all of its time. Inputs are
            prepared beside the steps, so theirs is what they lengthen the steps by.
        planned_seconds: The same, of the training that the settings plan.
        plan: The length of that training.
        steps: Steps on the real inputs.
        ready_steps: Steps on a batch that is ready.
        part_steps: Steps on a quarter of such a batch; None: it can't be divided.
        input_costs: What an image, or its cached features, costs in the inputs alone, by stage.
        gpu: How busy the GPUs are during the steps; None: there is none.
    """

    device: str
    cores: int
    batch_size: int
    steps_per_execution: int
    seconds: Mapping[str, float]
    planned_seconds: Mapping[str, float]
    plan: Plan
    steps: StepTimes
    ready_steps: StepTimes
    part_steps: StepTimes | None
    input_costs: Mapping[str, Cost] = field(default_factory=dict)
    gpu: GpuShares | None = None

    @property
    def fixed_share(self) -> float | None:
        """Share of a step that does not depend on the batch size, such as launching its ops."""
        if self.part_steps is None:
            return None
        whole, part = self.ready_steps, self.part_steps
        images, fewer = whole.images / whole.count, part.images / part.count
        # A straight line through both, at no images.
        fixed = (part.per_step * images - whole.per_step * fewer) / (images - fewer)
        return min(1.0, max(0.0, fixed / whole.per_step))

    @property
    def busy_share(self) -> float:
        """Share of the cores' time that the steps on real inputs used."""
        return min(1.0, self.steps.processor_seconds / self.steps.seconds / self.cores)


def profile_training(trainer: Trainer, clock: StageClock, budget: Budget) -> TrainingProfile:
    """Train some steps of a run, evaluate, and save into its folders; nothing is resumed.

    Args:
        trainer: A run that has not begun, in folders of its own.
        clock: What was done before.
        budget: How long to measure what.
    """
    cached, training = trainer.parts.cached_features, trainer.inputs.training
    feature_seconds = 0.0
    if cached:
        with clock.stage(FEATURES):
            feature_seconds = base_seconds(cached, training, budget.features)
            trainer.step_inputs, images = blank_inputs(cached)
            feature_seconds *= images
    loop = TrainingSteps(trainer)
    trace, steps, loop_seconds = _train(loop, clock, budget.steps)
    with clock.left_out():
        gpu = _trace_gpus(loop)
        loop.close()
        ready, part = _time_ready_steps(trainer, loop.call_steps, budget.ready_steps)
        if cached:
            features = trainer.step_inputs.training.batches(0)
            costs = {READ: measure_cost(features, budget.input_stage)}
        else:
            costs = measure_input_costs(training, budget.input_stage)
    clock.seconds["trace"] += trace
    evaluation = _evaluate(trainer, clock, budget.evaluation)
    with clock.stage(SAVE):
        saving = _save(trainer)
    shares = divide_steps(steps, ready, costs)
    seconds = {**clock.seconds, **{each: share * loop_seconds for each, share in shares.items()}}
    seconds[EPOCHS] = sum(loop.epoch_starts)
    seconds[OTHER] = max(0.0, clock.total() - sum(seconds.values()))
    plan = plan_of(trainer, steps.per_step)
    planned = {
        **clock.seconds,
        **{each: share * plan.steps * steps.per_step for each, share in shares.items()},
        FEATURES: feature_seconds,
        EVALUATE: plan.evaluations * evaluation,
        SAVE: _count_saves(plan, steps.per_step, evaluation, is_cached=cached is not None) * saving,
        EPOCHS: math.ceil(plan.epochs) * statistics.median(loop.epoch_starts),
        OTHER: 0.0,
    }
    return TrainingProfile(
        device=trainer.devices.describe(training.batch_size),
        cores=available_cores(),
        batch_size=training.batch_size,
        steps_per_execution=trainer.plan.steps_per_execution,
        seconds={each: seconds[each] for each in STAGES if each in seconds},
        planned_seconds={each: planned[each] for each in STAGES if each in seconds},
        plan=plan,
        steps=steps,
        ready_steps=ready,
        part_steps=part,
        input_costs=costs,
        gpu=gpu,
    )


def divide_steps(steps: StepTimes, ready: StepTimes, costs: Mapping[str, Cost]) -> dict[str, float]:
    """Return the share of the time of steps that each stage of the inputs has, and the step.

    What the inputs cost is by how much a step is longer than one on a ready batch, because it waits
    for its input or shares its cores with them. This is divided among the stages in proportion to
    what they cost alone.

    Args:
        steps: Steps on the real inputs.
        ready: Steps on a ready batch.
        costs: What an image costs, by stage.
    """
    # Within what is known of it, whatever noise did to the difference: the wait was measured, and
    # beside it the inputs can't take more time from the step than they have processor time.
    least = steps.wait_share
    most = least + sum(each.processor_seconds for each in costs.values()) / steps.per_image
    inputs = min(1.0, max(least, min(1 - ready.per_image / steps.per_image, most)))
    total = sum(each.seconds for each in costs.values()) or math.inf
    shares = {stage: inputs * each.seconds / total for stage, each in costs.items()}
    return {**shares, STEP: 1 - sum(shares.values())}


def plan_of(trainer: Trainer, step_seconds: float) -> Plan:
    """Return how long the run will be if a step takes that long."""
    plan, per_epoch = trainer.plan, trainer.inputs.training.batches_per_epoch
    steps = trainer.timetable.total_steps
    if plan.max_minutes is not None:
        steps = max(1, min(steps, round(plan.max_minutes * 60 / step_seconds)))
    every: float = plan.steps_between_evals or plan.epochs_between_evals * per_epoch
    if plan.eval_throttle_secs is not None:
        every = max(1.0, plan.eval_throttle_secs / step_seconds)
    return Plan(steps, steps / per_epoch, math.ceil(steps / every))


def _count_saves(
    plan: Plan, step_seconds: float, evaluation_seconds: float, *, is_cached: bool
) -> int:
    """Return the number of saves: at each evaluation, but rarely with cached features."""
    if not is_cached:
        return plan.evaluations
    training_seconds = plan.steps * step_seconds + plan.evaluations * evaluation_seconds
    return min(plan.evaluations, 1 + int(training_seconds / SECONDS_UNSAVED))


def _train(
    loop: TrainingSteps, clock: StageClock, seconds: float
) -> tuple[float, StepTimes, float]:
    """Return the seconds of tracing, steps once buffers are empty, and the seconds of all steps."""
    start = time.perf_counter()
    first = time_steps(loop.make_call, loop.images_per_step, 0)
    # In `first`, which begins an epoch.
    first_epoch = loop.epoch_starts[0]
    loop.choose_call_steps()
    loop.empty_buffers()
    begun = len(loop.epoch_starts)
    steps = time_steps(loop.make_call, loop.images_per_step, seconds)
    starts = sum(loop.epoch_starts[begun:])
    steps = replace(steps, seconds=max(steps.seconds - starts, 1e-9))
    trace = max(0.0, first.seconds - first_epoch - first.input_wait - steps.per_step)
    total = time.perf_counter() - start - sum(loop.epoch_starts) - trace
    return trace, steps, total


def _time_ready_steps(
    trainer: Trainer, call_steps: int, seconds: float
) -> tuple[StepTimes, StepTimes | None]:
    """Return steps on a ready batch, and on a part of one if it can be divided."""
    times: list[StepTimes | None] = []
    for part in (1, _PART):
        if made := ready_calls(trainer, call_steps, part):
            make_call, images = made
            time_steps(make_call, images, 0)  # Fills the buffers.
            times.append(time_steps(make_call, images, seconds / part))
        else:
            times.append(None)
    whole, quarter = times
    assert whole
    return whole, quarter


def _evaluate(trainer: Trainer, clock: StageClock, seconds: float) -> float:
    """Evaluate for some seconds. Return those of a whole evaluation."""
    inputs: Any = trainer.step_inputs.validation
    ends: list[float] = []  # of the batches

    def is_late() -> bool:
        ends.append(time.perf_counter())
        return ends[-1] - start > seconds

    with trainer.parts.averaged_weights():
        start = time.perf_counter()
        trainer.evaluator.evaluate(inputs, 1)
        first = time.perf_counter() - start
        start = time.perf_counter()
        trainer.evaluator.evaluate(inputs, trainer.plan.max_eval_steps, is_late)
        end = time.perf_counter()
    taken, begun = end - start, ends[0] - start
    # With its first batch, an evaluation makes a data set and waits for the first images.
    trace = max(0.0, first - begun)
    clock.seconds["trace"] += trace
    clock.seconds[EVALUATE] += taken + first - trace
    batches = -(-trainer.inputs.validation.examples // inputs.batch_size)
    missing = min(batches, trainer.plan.max_eval_steps or batches) - len(ends)
    per_batch = (end - ends[0]) / (len(ends) - 1) if len(ends) > 1 else begun
    return taken + missing * per_batch


def _trace_gpus(loop: TrainingSteps) -> GpuShares | None:
    if not tf.config.list_logical_devices("GPU"):
        return None
    return trace_gpus(lambda: time_steps(loop.make_call, loop.images_per_step, _TRACED_SECONDS))


def _save(trainer: Trainer) -> float:
    """Save a snapshot and a checkpoint, as after an evaluation; return the seconds."""
    start, paths = time.perf_counter(), trainer.paths
    if trainer.devices.is_chief:
        write_snapshot(paths.best, trainer.parts.network, paths.classes, {}, paths.texts)
    trainer.checkpoints.save(trainer.state, trainer.learning_rate_at)
    return time.perf_counter() - start
