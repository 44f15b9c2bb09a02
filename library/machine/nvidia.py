"""The GPUs that NVIDIA's driver sees, by nvidia-smi, and those on the PCI bus."""

import logging
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from library.errors import reason_of
from library.machine.hardware import run_quietly
from library.messages import counted

logger = logging.getLogger(__name__)

# Where WSL has it, which a minimal PATH lacks.
_WSL_FOLDER = "/usr/lib/wsl/lib"
# Without a persistence daemon, the driver takes seconds to wake the GPUs up.
_SECONDS = 4.0
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_DISPLAY_CLASS = "0x03"  # VGA and 3D controllers

# Runs a command and returns (exit code, output), as `run_quietly` does.
Run = Callable[[list[str]], tuple[int, str]]


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver sees it; None: the driver does not say.

    Attributes:
        index: Its number, in the order of the PCI bus.
        mig: Whether it is divided by MIG (Multi-Instance GPU).
        mig_devices: Number of its MIG devices.
        capability: The compute capability (major, minor).
    """

    index: int
    name: str
    uuid: str = ""
    memory_mib: int | None = None
    used_mib: int | None = None
    compute_mode: str = "Default"
    mig: bool = False
    mig_devices: int = 0
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: Such as 535.104.05; empty: there is none, or it does not answer.
        cuda: The newest CUDA that it runs (major, minor); None: unknown.
        gpus: What it sees.
        error: What nvidia-smi says instead; empty: it answered, or it is not installed.
    """

    version: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    error: str = ""


def find_nvidia_smi() -> str | None:
    """Return the path of nvidia-smi, or None if it is not installed."""
    return shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=_WSL_FOLDER)


def read_driver(run: Run | None = None) -> Driver:
    """Ask nvidia-smi for the driver and its GPUs.

    Args:
        run: Runs nvidia-smi with arguments; None: the installed one.
    """
    if run is None:
        if not (path := find_nvidia_smi()):
            return Driver()

        def run(arguments: list[str]) -> tuple[int, str]:
            return run_quietly([path, *arguments], _SECONDS)

    try:
        code, text = run(["-q", "-x"])
        driver = parse_driver(text) if code == 0 else Driver(error=_first_line(text, code))
        if driver.gpus:
            # Drivers before 510 lack this field.
            code, text = run(["--query-gpu=uuid,compute_cap", "--format=csv,noheader"])
            driver = add_capabilities(driver, text if code == 0 else "")
    except subprocess.TimeoutExpired:
        return Driver(error=f"nvidia-smi did not answer within {_SECONDS:g} s")
    except OSError as error:
        return Driver(error=f"nvidia-smi can't be run: {reason_of(error)}")
    return driver


def parse_driver(text: str) -> Driver:
    """Return the Driver that the output of `nvidia-smi -q -x` describes."""
    start = text.find("<nvidia_smi_log>")  # A warning may precede the XML.
    try:
        log = ElementTree.fromstring(text[start:] if start >= 0 else text)
    except ElementTree.ParseError:
        return Driver(error=_first_line(text, 0))
    return Driver(
        version=log.findtext("driver_version", "").strip(),
        cuda=_read_pair(log.findtext("cuda_version", "")),
        gpus=tuple(_parse_gpu(index, each) for index, each in enumerate(log.iterfind("gpu"))),
    )


def add_capabilities(driver: Driver, text: str) -> Driver:
    """Return the driver with the compute capabilities of its GPUs, one `uuid, 8.6` per line."""
    rows = (line.split(",") for line in text.splitlines() if line.count(",") == 1)
    found = {uuid.strip(): _read_pair(capability) for uuid, capability in rows}
    gpus = [replace(each, capability=found.get(each.uuid)) for each in driver.gpus]
    return replace(driver, gpus=tuple(gpus))


def count_driver_gpus(root: Path = Path("/")) -> int:
    """Return the number of GPUs that the driver sees, at little cost. `root` is where proc is."""
    # In a container, the driver of the machine shows here even if no GPU was passed on.
    folder = root / "proc/driver/nvidia/gpus"
    if folder.is_dir():
        return len(list(folder.iterdir()))
    if not (path := find_nvidia_smi()):
        return 0
    try:
        code, text = run_quietly([path, "-L"], _SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(re.findall(r"^GPU \d+:", text, re.MULTILINE)) if code == 0 else 0


def are_gpus_hidden(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides all GPUs, as nobody does by accident."""
    first = environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return first in ("", "-1", "NoDevFiles", "none", "void")


@cache
def log_unused_gpus() -> None:
    """Log, once, that training runs on the CPU although the driver sees GPUs, if it does."""
    if not are_gpus_hidden() and (count := count_driver_gpus()):
        gpus = counted(count, "NVIDIA GPU")
        logger.warning(
            f"training on the CPU, but this machine has {gpus}: `python run.py doctor` says why "
            "(--num_gpus 0: no warning)"
        )


def find_pci_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the vendors of the GPUs on the PCI bus, one per GPU. `root` is where sys is."""
    vendors = []
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            kind, vendor = (
                (folder / each).read_text(encoding="ascii").strip() for each in ("class", "vendor")
            )
        except OSError:
            continue
        if kind.startswith(_DISPLAY_CLASS) and vendor in _VENDORS:
            vendors.append(_VENDORS[vendor])
    return tuple(vendors)


def _parse_gpu(index: int, gpu: ElementTree.Element) -> Gpu:
    memory = "fb_memory_usage"
    return Gpu(
        index=index,
        name=gpu.findtext("product_name", "").strip() or "unknown GPU",
        uuid=gpu.findtext("uuid", "").strip(),
        memory_mib=_read_mib(gpu.findtext(f"{memory}/total", "")),
        used_mib=_read_mib(gpu.findtext(f"{memory}/used", "")),
        compute_mode=gpu.findtext("compute_mode", "Default").strip(),
        mig=gpu.findtext("mig_mode/current_mig", "").strip() == "Enabled",
        mig_devices=len(gpu.findall("mig_devices/mig_device")),
    )


def _read_mib(text: str) -> int | None:
    found = re.fullmatch(r"(\d+) MiB", text.strip())
    return int(found[1]) if found else None


def _read_pair(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def _first_line(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else f"nvidia-smi ended with exit code {code} and no output"
