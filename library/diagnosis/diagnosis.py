"""All facts about a machine, and all findings from them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from library.diagnosis.gpu_rules import judge_gpus
from library.diagnosis.machine_rules import (
    judge_disks,
    judge_machine,
    judge_packages,
    usable_memory,
)
from library.diagnosis.speed import Choices, Speed, judge_speed
from library.machine.disk import Disk
from library.machine.gpu_facts import (
    VARIABLES,
    GpuFacts,
    TensorFlowBuild,
    TensorFlowGpu,
    available_libraries,
    find_lacking,
    wanted_libraries,
)
from library.machine.hardware import Cpu, Memory, Platform
from library.machine.nvidia import Driver, find_pci_gpus
from library.machine.packages import Packages, extra_requirements, find_unmet

# CPU instructions for products of bfloat16 matrices.
_BFLOAT16 = {"AVX512_BF16", "AMX_BF16"}


@dataclass(frozen=True)
class Facts:
    """What is known about a machine."""

    packages: Packages
    platform: Platform
    cpu: Cpu
    memory: Memory
    disks: tuple[Disk, ...]
    gpu: GpuFacts
    speed: Speed
    choices: Choices


def read_gpu_facts(
    driver: Driver,
    build: TensorFlowBuild,
    platform: Platform,
    num_gpus: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> GpuFacts:
    """Return what decides whether the GPUs are used.

    Args:
        driver: What nvidia-smi says.
        build: What TensorFlow says.
        platform: The operating system.
        num_gpus: The setting.
        environ: The environment variables.
    """
    devices = Path("/dev")
    return GpuFacts(
        driver=driver,
        tensorflow=build,
        platform=platform,
        pci_gpus=find_pci_gpus(),
        lacking_libraries=find_lacking(wanted_libraries(build), available_libraries(environ)),
        lacking_packages=tuple(find_unmet(extra_requirements("tensorflow", ["and-cuda"])))
        if build.cuda
        else (),
        is_driver_loaded=Path("/proc/driver/nvidia/version").exists(),
        has_device_files=any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists(),
        environ={name: environ[name] for name in VARIABLES if name in environ},
        num_gpus=num_gpus,
    )


def choices_of(
    gpus: Sequence[TensorFlowGpu], cpu: Cpu, memory: Memory, settings: Mapping[str, Any]
) -> Choices:
    """Return what the advice about speed chooses from.

    Args:
        gpus: Those that TensorFlow uses.
        cpu: The processor.
        memory: The memory.
        settings: The settings dtype, xla, cache and augment_on_device.
    """
    # A GPU of unknown capability gets the advice for the oldest ones.
    lowest = min((each.capability or (0, 0) for each in gpus), default=None)
    return Choices(
        **settings,
        gpu_capability=lowest,
        has_bfloat16=bool(_BFLOAT16.intersection(cpu.instructions or ())),
        free_memory=usable_memory(memory),
    )


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, in the order in which one cause leads to the next."""
    findings = [
        *judge_packages(facts.packages),
        *judge_machine(facts.cpu, facts.memory, facts.platform),
        *judge_disks(facts.disks),
    ]
    build = facts.gpu.tensorflow
    if build.is_late:
        text = "did not start in time: the disk or the machine is busy; try again"
        findings.append(Finding(WARNING, "TensorFlow", text))
    elif build.error:
        findings.append(Finding(PROBLEM, "TensorFlow", f"can't be started: {build.error}"))
    else:
        cuda = f"built for CUDA {build.cuda}" if build.cuda else "built without CUDA"
        findings.append(Finding(OK, "TensorFlow", f"{build.version}, {cuda}"))
    return [*findings, *judge_gpus(facts.gpu), *judge_speed(facts.speed, facts.choices)]
