"""Findings about Python, packages, processor, memory and disks."""

from collections.abc import Iterator, Sequence

from library.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from library.machine.disk import Disk
from library.machine.hardware import Cpu, Memory, Platform
from library.machine.packages import Packages

# TensorFlow for x86-64 is compiled with AVX; its own kernels choose newer instructions at run time.
_NEEDED_INSTRUCTION, _FAST_INSTRUCTION = "AVX", "AVX2"
# TensorFlow, the network and the shuffle buffer (shuffle_bytes) take about so much.
_MIN_MEMORY, _ENOUGH_MEMORY = 1.5e9, 4e9
_MIN_FREE, _ENOUGH_FREE = 0.2e9, 3e9
# A hard disk writes faster than this.
_SLOW_DISK = 30e6


def judge_packages(packages: Packages) -> Iterator[Finding]:
    """Yield findings about Python and the packages."""
    if packages.requires_python and not packages.is_python_supported:
        wanted = f"this project is for {packages.requires_python}"
        yield Finding(PROBLEM, "Python", f"{packages.python}: {wanted}; create .venv with another")
    else:
        yield Finding(OK, "Python", packages.python)
    if packages.missing:
        missing = ", ".join(packages.missing)
        yield Finding(PROBLEM, "packages", f"missing: {missing}; run make, or pip install .")
    if packages.locked is None:
        yield Finding(OK, "packages", "no requirements.lock here to compare versions with")
    elif differing := packages.differing:
        pairs = (f"{name} {own} (locked: {locked})" for name, (own, locked) in differing.items())
        text = f"{len(differing)} of {packages.locked} differ from requirements.lock"
        yield Finding(WARNING, "packages", f"{text}: {', '.join(pairs)}")
    else:
        text = f"{packages.locked} installed, all as in requirements.lock"
        yield Finding(OK, "packages", text)
    if extras := packages.missing_extras:
        # A list of all CUDA packages would say no more than the extra's name.
        lacks = (f"{name} ({each[0]}{', …' if each[1:] else ''})" for name, each in extras.items())
        text = f"not installed: {', '.join(lacks)}; pip install '.[{next(iter(extras))}]' adds one"
        yield Finding(OK, "extras", text)
    else:
        yield Finding(OK, "extras", "all installed")


def judge_machine(cpu: Cpu, memory: Memory, platform: Platform) -> Iterator[Finding]:
    """Yield findings about the platform, the processor and the memory."""
    kind = f"WSL {platform.wsl}" if platform.wsl else platform.container
    name = f"{platform.system} {platform.release}"
    yield Finding(OK, "platform", f"{name} ({kind})" if kind else name)
    yield _judge_instructions(cpu)
    yield _judge_cores(cpu)
    if memory.total is not None:
        yield _judge_memory(memory)


def judge_disks(disks: Sequence[Disk]) -> Iterator[Finding]:
    """Yield a finding for each disk."""
    for disk in disks:
        free = f"{disk.free / 1e9:,.1f} GB free"
        speeds = {"write": disk.write, "read": disk.read}
        rates = ", ".join(f"{name} {rate / 1e6:,.0f} MB/s" for name, rate in speeds.items() if rate)
        text = f"{disk.folder}: " + ", ".join(filter(None, (rates, free)))
        if disk.error:
            # Converted data may lie on a read-only disk; a run can't.
            verdict = PROBLEM if disk.is_run else OK
            yield Finding(verdict, "disk", f"{disk.folder} can't be written: {disk.error}")
        elif disk.free < _MIN_FREE:
            yield Finding(PROBLEM, "disk", f"{text}: a run needs more; choose another --run_dir")
        elif disk.free < _ENOUGH_FREE:
            yield Finding(WARNING, "disk", f"{text}: checkpoints of a large network need more")
        elif disk.write is not None and disk.write < _SLOW_DISK:
            yield Finding(WARNING, "disk", f"{text}: slow; data on a local SSD trains faster")
        else:
            yield Finding(OK, "disk", text)


def usable_memory(memory: Memory) -> int | None:
    """Return the bytes that a training may still take; None: unknown."""
    bounds = [each for each in (memory.available, memory.limit) if each is not None]
    return min(bounds, default=memory.total)


def _judge_instructions(cpu: Cpu) -> Finding:
    name = cpu.model or cpu.architecture
    if cpu.instructions is None:
        return Finding(OK, "CPU", f"{name} ({cpu.architecture}); instructions unknown")
    text = f"{name}: {', '.join(cpu.instructions) or 'none of the vector instructions known here'}"
    if cpu.architecture.lower() in ("x86_64", "amd64"):
        if _NEEDED_INSTRUCTION not in cpu.instructions:
            needed = (
                "TensorFlow needs AVX and would abort; in a virtual machine, pass the host's CPU"
            )
            return Finding(PROBLEM, "CPU", f"{text}: {needed}")
        if _FAST_INSTRUCTION not in cpu.instructions:
            return Finding(
                WARNING, "CPU", f"{text}: without AVX2, training is several times slower"
            )
    return Finding(OK, "CPU", text)


def _judge_cores(cpu: Cpu) -> Finding:
    text = f"{cpu.usable_cores} of {cpu.cores} usable"
    if cpu.usable_cores == cpu.cores:
        text = f"{cpu.cores}"
    if cpu.quota is not None and cpu.quota < cpu.usable_cores:
        threads = max(1, round(cpu.quota))
        return Finding(
            WARNING,
            "cores",
            f"{text}, but the container may use the time of {cpu.quota:g}: threads would wait for "
            f"each other; --intra_op_threads {threads} --num_parallel_calls {4 * threads}, or "
            "give it more cores",
        )
    return Finding(OK, "cores", text)


def _judge_memory(memory: Memory) -> Finding:
    parts = [f"{(memory.total or 0) / 1e9:.1f} GB"]
    if memory.available is not None:
        parts.append(f"{memory.available / 1e9:.1f} GB available")
    if memory.limit is not None:
        parts.append(f"limited to {memory.limit / 1e9:.1f} GB (cgroup)")
    text, usable = ", ".join(parts), usable_memory(memory) or 0
    if usable < _MIN_MEMORY:
        return Finding(PROBLEM, "memory", f"{text}: too little for TensorFlow; end other programs")
    if usable < _ENOUGH_MEMORY:
        advice = "use a smaller --batch_size and --shuffle_bytes 200000000"
        return Finding(WARNING, "memory", f"{text}: little; if it runs out, {advice}")
    return Finding(OK, "memory", text)
