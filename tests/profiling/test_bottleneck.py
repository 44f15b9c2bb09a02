"""What the figures of a profile say, and how they are shown."""

import json

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from library.describing.pipeline_benchmark import Cost
from library.diagnosis.speed import Choices
from library.profiling.bottleneck import Context, advise, find_bottleneck
from library.profiling.gpu_trace import GpuShares, read_shares, trace_gpus
from library.profiling.output import format_profile, to_json
from library.profiling.step_times import StepTimes
from library.profiling.training_profile import Plan, TrainingProfile, divide_steps

CONTEXT = Context(Choices(), 10**15, (64, 64))


def steps(seconds, images=64, input_wait=0.0, processor=0.0):
    """Ten steps of that many seconds each."""
    return StepTimes(10, 10 * images, 10 * seconds, 10 * input_wait, 10 * processor)


def profile_of(planned, part=None, **values):
    start = {"import": 5.0, "set up": 1.0, "trace": 2.0}
    seconds = {**start, "read": 0.1, "decode": 1.0, "step": 3.0, "evaluate": 1.0, "save": 0.5}
    seconds["other"] = 0.4
    costs = {"read": Cost(1e-5, 1e-5), "decode": Cost(1e-4, 1e-4)}
    return TrainingProfile(
        "the CPU", 2, 64, 1, seconds, {**seconds, **planned}, Plan(100, 10, 10),
        steps(0.1), steps(0.08), part, costs, **values
    )  # fmt: skip


def test_find_bottleneck_compares_the_inputs_as_a_whole():
    seconds = {"import": 3.0, "step": 4.0, "read": 1.0, "decode": 2.5, "augment": 2.0, "save": 1.0}
    assert find_bottleneck(seconds) == "decode"
    assert find_bottleneck({**seconds, "step": 6.0}) == "step"
    assert find_bottleneck({**seconds, "trace": 3.0}) == "start"


def test_divide_steps():
    costs = {"read": Cost(1e-4, 1e-4), "decode": Cost(3e-4, 3e-4)}
    # Of 100 ms, 20 are due to the inputs.
    shares = divide_steps(steps(0.1), steps(0.08), costs)
    assert shares == pytest.approx({"read": 0.05, "decode": 0.15, "step": 0.8})
    # Inputs that only wait, as for a disk, cost what was waited.
    slow = {"read": Cost(1e-3, 0.0)}
    assert divide_steps(steps(0.1, input_wait=0.07), steps(0.08), slow)["read"] == pytest.approx(
        0.7
    )
    # A ready batch that looks slower than the real inputs does not make their cost negative.
    assert divide_steps(steps(0.1), steps(0.2), costs)["step"] == 1


def test_fixed_share():
    # 8 ms, of which 6 would be needed for no images.
    profile = profile_of({}, part=steps(0.0725, images=16))
    assert profile.fixed_share == pytest.approx(0.0700 / 0.08)
    assert profile_of({}, part=steps(0.02, images=16)).fixed_share == pytest.approx(0)
    assert profile_of({}).fixed_share is None


@pytest.mark.parametrize(
    ("stage", "values", "context", "expected"),
    [
        ("step", {"part": steps(0.07, images=16)}, {}, "--steps_per_execution"),
        ("step", {"part": steps(0.07, images=16)}, {}, "--intra_op_threads 1"),
        ("step", {"part": steps(0.02, images=16)}, {}, "a GPU"),
        ("step", {"gpu": GpuShares(0.3, 0.1)}, {}, "--xla"),
        ("decode", {}, {"stored_shape": (375, 500)}, "--max_edge 110"),
        ("decode", {}, {"stored_shape": (64, 64), "input_advice": {"decode": "cores"}}, "cores"),
        ("read", {}, {"input_advice": {"read": "a faster disk"}}, "a faster disk"),
        ("augment", {}, {"augmentations": {"flip": 0.1, "blur": 0.3}}, "blur, 30%"),
        ("evaluate", {}, {}, "--epochs_between_evals"),
        ("save", {}, {}, "disk"),
        ("copy", {}, {}, "--prefetch_to_device"),
        ("start", {}, {}, "more epochs"),
        ("cache features", {}, {}, "--cached_views"),
    ],
)
def test_advise_follows_from_the_figures(stage, values, context, expected):
    given = {name: getattr(CONTEXT, name) for name in vars(CONTEXT)} | context
    advice = advise(profile_of({}, **values), stage, Context(**given))
    assert expected in ", ".join(advice)


def test_format_profile_and_json():
    profile = profile_of({"step": 60.0}, part=steps(0.07, images=16))
    *table, bottleneck, advice = format_profile(profile, CONTEXT)
    stages = [line.split("  ")[0] for line in table[1:]]
    assert stages[: stages.index("total")] == list(profile.seconds)
    assert "step" in bottleneck
    assert "--batch_size" in advice
    found = json.loads(to_json(profile, CONTEXT))
    assert found["bottleneck"] == "step"
    assert sum(found["planned_shares"].values()) == pytest.approx(1)


def test_read_shares_of_a_gpu():
    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    for number, name in enumerate(("gemm", "MemcpyH2D")):
        plane.event_metadata[number].name = name
    stream, other, summary = (
        plane.lines.add(name=each) for each in ("Stream #7", "Stream #8", "Steps")
    )
    # Kernels from 0 to 30 and from 20 to 40, a copy from 90 to 100: summaries don't count.
    for line, kind, start, length in (
        (stream, 0, 0, 30), (other, 0, 20, 20), (other, 1, 90, 10), (summary, 0, 0, 100)
    ):  # fmt: skip
        line.events.add(metadata_id=kind, offset_ps=start, duration_ps=length)
    assert read_shares([space.SerializeToString()]) == GpuShares(0.4, 0.1)
    space.planes[0].name = "/host:CPU"
    assert read_shares([space.SerializeToString()]) is None


def test_trace_gpus_without_a_gpu():
    done = []
    assert trace_gpus(lambda: done.append(1)) is None
    assert done == [1]
