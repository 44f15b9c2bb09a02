"""The processor, the memory and the platform, with the limits that a container sets."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.dataset.worker_pool import available_cores

# Flags of /proc/cpuinfo, and the instructions as people name them.
_FLAGS = (
    "avx=AVX avx2=AVX2 fma=FMA avx512f=AVX512 avx512_vnni=AVX512_VNNI avx512_bf16=AVX512_BF16 "
    "amx_tile=AMX amx_bf16=AMX_BF16 amx_int8=AMX_INT8 asimd=NEON sve=SVE bf16=BF16 i8mm=I8MM"
)
INSTRUCTIONS = dict(each.split("=") for each in _FLAGS.split())
_CONTAINER_FILES = {".dockerenv": "Docker", "run/.containerenv": "Podman"}


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        model: Its name; empty if the system does not say.
        architecture: Such as x86_64 or arm64.
        instructions: Those of INSTRUCTIONS that it has; None: unknown.
        cores: Logical cores of the machine.
        usable_cores: Those that this process may run on (affinity).
        quota: Cores' worth of time that its cgroup may use; None: no limit.
    """

    model: str
    architecture: str
    instructions: tuple[str, ...] | None
    cores: int
    usable_cores: int
    quota: float | None = None


@dataclass(frozen=True)
class Memory:
    """The memory in bytes; None: unknown, or no limit."""

    total: int | None
    available: int | None = None
    limit: int | None = None  # of the cgroup


@dataclass(frozen=True)
class Platform:
    """The operating system, as programs see it."""

    system: str  # Linux, Darwin or Windows
    release: str
    wsl: int = 0  # the version of the Windows Subsystem for Linux; 0: another system
    container: str = ""  # its kind; empty: none


def read_cpu(root: Path = Path("/")) -> Cpu:
    """Return the processor. `root` is where proc and sys are."""
    model, flags = _read_cpuinfo(root)
    names = tuple(dict.fromkeys(name for flag, name in INSTRUCTIONS.items() if flag in flags))
    return Cpu(
        model=model or platform.processor(),
        architecture=platform.machine(),
        instructions=names if flags else None,
        cores=os.cpu_count() or 1,
        usable_cores=available_cores(),
        quota=min(_cgroup_quotas(root), default=None),
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """Return the memory. `root` is where proc and sys are."""
    lines = _read(root / "proc/meminfo").splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}
    total = values.get("MemTotal")
    if total is None and hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # A limit that is not set is a number above all memory in version 1.
    limits = [each for each in _cgroup_limits(root) if total is None or each < total]
    return Memory(total, values.get("MemAvailable"), min(limits, default=None))


def read_platform(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Platform:
    """Return the platform. `root` is where proc and run are."""
    kernel = _read(root / "proc/sys/kernel/osrelease").strip().lower()
    # WSL 1 calls itself 4.4.0-19041-Microsoft, WSL 2 5.15.90.1-microsoft-standard-WSL2.
    wsl = 0 if "microsoft" not in kernel else 2 if "wsl2" in kernel else 1
    kinds = [kind for name, kind in _CONTAINER_FILES.items() if (root / name).exists()]
    if "KUBERNETES_SERVICE_HOST" in environ:
        kinds.insert(0, "Kubernetes")
    return Platform(
        platform.system(), platform.release(), wsl, (kinds or [environ.get("container", "")])[0]
    )


def run_quietly(command: Sequence[str], seconds: float = 5.0) -> tuple[int, str]:
    """Return a program's exit code and what it wrote to stdout and stderr.

    Raises:
        OSError: It can't be started.
        subprocess.TimeoutExpired: It took longer than `seconds`.
    """
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_cpuinfo(root: Path) -> tuple[str, set[str]]:
    """Return the model and the flags of the first core."""
    values: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    flags = values.get("flags") or values.get("Features") or ""
    return values.get("model name", ""), set(flags.split())


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of those above it, of version 2 and 1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = base / path.lstrip("/")
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(base))


def _cgroup_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        quota = quota or _read(folder / "cpu.cfs_quota_us").strip()
        period = period or _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit():  # not `max` or -1
            yield int(quota) / int(period)


def _cgroup_limits(root: Path) -> Iterator[int]:
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (text := _read(folder / name).strip()).isdigit():
                yield int(text)
