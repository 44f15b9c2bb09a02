"""All that decides whether TensorFlow uses a GPU: its build, its libraries, the environment."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from subprocess import TimeoutExpired

from library.machine.hardware import Platform, run_quietly
from library.machine.nvidia import Driver

# What hides GPUs from CUDA or from a container, or changes what TensorFlow loads.
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH", "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_FLAGS"),
)
# The versions in the names of the libraries that TensorFlow loads, by the major version of CUDA.
_CUDART, _CUBLAS, _CUFFT, _CUSOLVER, _CUSPARSE = (
    *("libcudart", "libcublas", "libcufft", "libcusolver", "libcusparse"),
)
_SONAMES = {
    11: {_CUDART: "11.0", _CUBLAS: "11", _CUFFT: "10", _CUSOLVER: "11", _CUSPARSE: "11"},
    12: {_CUDART: "12", _CUBLAS: "12", _CUFFT: "11", _CUSOLVER: "11", _CUSPARSE: "12"},
    13: {_CUDART: "13", _CUBLAS: "13", _CUFFT: "12", _CUSOLVER: "12", _CUSPARSE: "12"},
}
DRIVER_LIBRARY = "libcuda.so.1"


@dataclass(frozen=True)
class TensorFlowGpu:
    """A GPU that TensorFlow uses."""

    name: str
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class TensorFlowBuild:
    """TensorFlow as installed, and what it sees.

    Attributes:
        version: Its version; empty: it can't be imported.
        cuda: The CUDA that it was built for, such as 12.5.1; empty: none.
        cudnn: The major version of cuDNN; empty: none.
        capabilities: Compute capabilities that it has kernels for: sm_80 is machine code,
            compute_90 that and PTX, which the driver compiles for newer GPUs.
        gpus: Those that it uses.
        messages: What it logged about GPUs.
        error: Why it can't be imported or started; empty: it can.
        is_late: Whether it did not start in the time given.
    """

    version: str = ""
    cuda: str = ""
    cudnn: str = ""
    capabilities: tuple[str, ...] = ()
    gpus: tuple[TensorFlowGpu, ...] = ()
    messages: tuple[str, ...] = ()
    error: str = ""
    is_late: bool = False

    @property
    def cuda_major(self) -> int:
        """The major version of CUDA; 0: none."""
        return int(self.cuda.partition(".")[0] or 0)


@dataclass(frozen=True)
class GpuFacts:
    """What the rules about GPUs take into account.

    Attributes:
        pci_gpus: Vendors of the GPUs on the PCI bus.
        lacking_libraries: Library that TensorFlow would load → another version that was found
            instead, or an empty text.
        lacking_packages: What the extra `gpu` would install or replace.
        is_driver_loaded: Whether the kernel has NVIDIA's driver, which a container sees too.
        has_device_files: Whether GPUs were passed on to this system (/dev/nvidia0 or /dev/dxg).
        environ: Those of VARIABLES that are set.
        num_gpus: The setting.
    """

    driver: Driver
    tensorflow: TensorFlowBuild
    platform: Platform
    pci_gpus: tuple[str, ...] = ()
    lacking_libraries: Mapping[str, str] = field(default_factory=dict)
    lacking_packages: tuple[str, ...] = ()
    is_driver_loaded: bool = False
    has_device_files: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    num_gpus: int | None = None


def wanted_libraries(build: TensorFlowBuild) -> tuple[str, ...]:
    """Return the names of the libraries that TensorFlow loads to use a GPU."""
    if not build.cuda:
        return ()
    toolkit = _SONAMES.get(build.cuda_major, {})
    names = [f"{name}.so.{version}" for name, version in toolkit.items()]
    return (DRIVER_LIBRARY, *names, *([f"libcudnn.so.{build.cudnn}"] if build.cudnn else []))


def find_lacking(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Return each library that is not available → another version that is, or an empty text."""
    names = sorted({*available})
    return {
        each: next((name for name in names if _is_other_version(name, each)), "")
        for each in wanted
        if each not in names
    }


def available_libraries(environ: Mapping[str, str] = os.environ) -> set[str]:
    """Return the names of the CUDA libraries that a program can load on this system."""
    spec = find_spec("nvidia")
    folders = [Path(each) for each in environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    for package in spec.submodule_search_locations or () if spec else ():
        # Where TensorFlow looks by itself.
        folders += Path(package).glob("*/lib")
    names = {path.name for folder in folders for path in folder.glob("lib*.so*")}
    try:
        _, text = run_quietly(["/sbin/ldconfig", "-p"], 2)
    except (OSError, TimeoutExpired):
        text = ""
    names |= {line.split()[0] for line in text.splitlines() if "=>" in line}
    with contextlib.suppress(OSError):
        # Small, and wherever the system has it.
        ctypes.CDLL(DRIVER_LIBRARY)
        names.add(DRIVER_LIBRARY)
    return {each for each in names if re.match(r"libcu", each)}


def _is_other_version(name: str, wanted: str) -> bool:
    stem = wanted.partition(".so")[0]
    return re.fullmatch(rf"{re.escape(stem)}\.so\.\d+", name) is not None
