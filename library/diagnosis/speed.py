"""How fast this machine prepares images and trains on them, and what to do about the bottleneck."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from library.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from library.messages import counted

# Inputs that are this much faster than the training step do not hold it up.
_FASTER = 1.2


@dataclass(frozen=True)
class Speed:
    """What was measured, in images per second or seconds; None: not in the time given.

    Attributes:
        data: What was trained on.
        lacks_data: Why no data of the settings was; empty: it was.
        examples: Images per epoch; 0: unknown, because there is no data.
        cache_bytes: What `--cache memory` would hold.
        batch_size: Images per step.
        rates: Images per second of each stage of the inputs, together with those before it.
        input_advice: What would speed the slowest stage up.
        first_step: Seconds of the first step, which compiles the network.
        step: Seconds of a later one.
        is_base_cached: Whether a frozen base runs only once per image.
        device: What trains: `the CPU`, `one GPU`, ….
        reason: Why something was not measured; empty: everything was.
        refusal: Why no training can start with these settings; empty: it can.
    """

    data: str = ""
    lacks_data: str = ""
    examples: int = 0
    cache_bytes: int = 0
    batch_size: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    input_advice: str = ""
    first_step: float | None = None
    step: float | None = None
    is_base_cached: bool = False
    device: str = ""
    reason: str = ""
    refusal: str = ""

    @property
    def input_rate(self) -> float | None:
        """Images per second that the whole input pipeline gives."""
        return [*self.rates.values()][-1] if self.rates else None

    @property
    def step_rate(self) -> float | None:
        """Images per second that the training step takes."""
        return self.batch_size / self.step if self.step else None


@dataclass(frozen=True)
class Choices:
    """The settings that decide about speed, and what there is to choose from.

    Attributes:
        dtype, xla, cache, augment_on_device: The settings of these names.
        gpu_capability: The lowest compute capability of the GPUs that are used; None: no GPU.
        has_bfloat16: Whether the CPU multiplies bfloat16 matrices (AVX512_BF16 or AMX).
        free_memory: Bytes of memory to be had.
    """

    dtype: str = "float32"
    xla: bool = False
    cache: str = "none"
    augment_on_device: bool = False
    gpu_capability: tuple[int, int] | None = None
    has_bfloat16: bool = False
    free_memory: int | None = None


def time_calls(function: Callable[[], object], seconds: float) -> float:
    """Return the median seconds of as many calls as the time allows, but at least one."""
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def judge_speed(speed: Speed, choices: Choices) -> list[Finding]:
    """Return findings about the speed, the bottleneck last."""
    findings = []
    if speed.refusal:
        findings.append(Finding(PROBLEM, "settings", speed.refusal))
    if speed.lacks_data:
        findings.append(Finding(WARNING, "data", speed.lacks_data))
    if speed.rates:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in speed.rates.items())
        findings.append(Finding(OK, "inputs", f"{rates} images/s, on {speed.data}"))
    if speed.step_rate:
        images, first = counted(speed.batch_size, "image"), speed.first_step or 0
        text = f"{speed.step:.3g} s for {images} on {speed.device}: {speed.step_rate:,.0f} images/s"
        findings.append(Finding(OK, "training step", f"{text}; the first one took {first:.1f} s"))
    if speed.reason:
        subject = "training step" if speed.rates else "inputs"
        findings.append(Finding(WARNING, subject, f"not measured: {speed.reason}"))
    if speed.step_rate and speed.input_rate:
        findings.append(_judge_bottleneck(speed, choices, speed.input_rate, speed.step_rate))
    return findings


def _judge_bottleneck(
    speed: Speed, choices: Choices, input_rate: float, step_rate: float
) -> Finding:
    on_gpu = choices.gpu_capability is not None
    # Without a GPU, both share the same cores.
    rate = min(input_rate, step_rate) if on_gpu else 1 / (1 / input_rate + 1 / step_rate)
    is_input = input_rate < step_rate * (_FASTER if on_gpu else 1)
    parts = ["the inputs" if is_input else "the training step"]
    if speed.examples:
        images, time_needed = counted(speed.examples, "image"), duration(speed.examples / rate)
        parts.append(f"an epoch of {images} takes about {time_needed}")
    if speed.is_base_cached:
        parts.append("later epochs take less: the frozen base runs once or twice per image")
    advised = advise_inputs(speed, choices) if is_input else advise_step(choices)
    if advised:
        parts.append(f"to speed it up: {', or '.join(advised)}")
    return Finding(WARNING if is_input and on_gpu else OK, "bottleneck", "; ".join(parts))


def advise_inputs(speed: Speed, choices: Choices) -> list[str]:
    """Return what would speed the inputs up."""
    advised = [speed.input_advice] if speed.input_advice else []
    fits = choices.free_memory is not None and speed.cache_bytes < choices.free_memory / 2
    if choices.cache == "none" and fits:
        advised.append(f"--cache memory (about {speed.cache_bytes / 1e9:.2g} GB)")
    if choices.gpu_capability and not choices.augment_on_device and "augment" in speed.rates:
        advised.append("--augment_on_device")
    return advised


def advise_step(choices: Choices) -> list[str]:
    """Return what would speed the training step up."""
    advised = []
    if capability := choices.gpu_capability:
        if choices.dtype == "float32" and capability >= (7, 0):
            advised.append(f"--dtype {'bfloat16' if capability >= (8, 0) else 'float16'}")
        if not choices.xla:
            advised.append("--xla")
        return [*advised, "a larger --batch_size"]
    if choices.dtype == "float32" and choices.has_bfloat16:
        # Measured with AVX512_BF16, by processor time: `simple` 1.6 times as fast, MobileNetV2 0.8.
        advised.append("perhaps --dtype bfloat16 (not with depthwise convolutions)")
    return [*advised, "a GPU", "a smaller --image_size", "a smaller network"]


def duration(seconds: float) -> str:
    """Return seconds as text, in a unit that fits."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
