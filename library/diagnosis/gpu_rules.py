"""Why TensorFlow does not use a GPU, or what slows it down there: rules over GpuFacts."""

import re
from collections.abc import Iterator

from library.diagnosis.findings import OK, PROBLEM, WARNING, Finding, Verdict
from library.machine.gpu_facts import (
    DRIVER_LIBRARY,
    GpuFacts,
    TensorFlowBuild,
    TensorFlowGpu,
)
from library.machine.nvidia import Gpu, are_gpus_hidden
from library.messages import counted, listed

# The oldest drivers for Linux by the major version of CUDA:
# docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility.
MIN_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# More than this share of its memory taken by others, and a training may run out of it.
_BUSY_SHARE = 0.5
_GPU_EXTRA = "pip install '.[gpu]'"
_RUNTIME = (
    "install the NVIDIA Container Toolkit and start the container with --gpus all (in a compose "
    "file or Kubernetes: request the GPU)"
)


def judge_gpus(facts: GpuFacts) -> list[Finding]:
    """Return a finding for each GPU, or one about why there is none."""
    findings = [*_judge_driver(facts)]
    used = [*facts.tensorflow.gpus]
    reason = None
    for gpu in facts.driver.gpus:
        subject = f"GPU {gpu.index}"
        if match := _take_match(gpu, used):
            verdict, text = _judge_used(gpu, match, facts)
        elif facts.num_gpus == 0:
            verdict, text = OK, "not used: num_gpus is 0"
        elif facts.tensorflow.error:
            verdict, text = WARNING, "TensorFlow did not start, so it is unknown whether it uses it"
        else:
            reason = reason or _shared_reason(facts)
            verdict = WARNING
            text = f"not used: {_own_reason(gpu, facts) or reason or _unknown_reason(facts)}"
        findings.append(Finding(verdict, subject, f"{describe(gpu)}: {text}"))
    for each in used:  # of which the driver's tool does not tell
        findings.append(Finding(OK, "GPU", f"{each.name}: used by TensorFlow"))
    count = len(facts.tensorflow.gpus)
    if facts.num_gpus and facts.num_gpus > count and not facts.tensorflow.error:
        found = counted(count, "GPU")
        findings.append(
            Finding(PROBLEM, "GPUs", f"num_gpus is {facts.num_gpus}, and TensorFlow uses {found}")
        )
    if not findings:
        findings.append(Finding(OK, "GPU", "none found: training uses the CPU"))
    return findings


def describe(gpu: Gpu) -> str:
    """Return the name of a GPU with its memory and compute capability, as far as known."""
    memory = f"{gpu.memory_mib / 1024:.0f} GiB" if gpu.memory_mib else ""
    capability = f"compute capability {_text(gpu.capability)}" if gpu.capability else ""
    details = ", ".join(filter(None, (memory, capability)))
    return f"{gpu.name} ({details})" if details else gpu.name


def _judge_driver(facts: GpuFacts) -> Iterator[Finding]:
    """Yield a finding if the driver itself sees no GPU although there is one."""
    driver, platform = facts.driver, facts.platform
    if driver.gpus or facts.tensorflow.gpus:
        return
    if driver.error:
        yield Finding(WARNING, "GPU driver", f"{driver.error}: {_driver_advice(facts)}")
    elif driver.version:
        verdict = WARNING if "NVIDIA" in facts.pci_gpus else OK
        text = f"the driver {driver.version} sees none: training uses the CPU"
        yield Finding(verdict, "GPU", text)
    elif facts.is_driver_loaded and not facts.has_device_files:
        where = f"this {platform.container} container" if platform.container else "this system"
        advice = _RUNTIME if platform.container else "run nvidia-modprobe, or restart the machine"
        yield Finding(
            WARNING, "GPU", f"the machine has an NVIDIA driver, and {where} no GPU: {advice}"
        )
    elif facts.is_driver_loaded:
        text = "nvidia-smi is not installed, so nothing is known about the GPUs; install it"
        yield Finding(WARNING, "GPU driver", text)
    elif platform.wsl:
        if platform.wsl == 1:
            advice = "WSL 1 has no GPUs: wsl --set-version <distribution> 2, in Windows"
            yield Finding(WARNING, "GPU", advice)
        elif facts.has_device_files:
            yield Finding(WARNING, "GPU driver", _driver_advice(facts))
    elif "NVIDIA" in facts.pci_gpus:
        count = facts.pci_gpus.count("NVIDIA")
        driver_text = f"CUDA {facts.tensorflow.cuda} needs {_min_driver(facts) or 'one'} or newer"
        yield Finding(
            WARNING,
            "GPU driver",
            f"{counted(count, 'NVIDIA GPU')} on the PCI bus and no driver; {driver_text}",
        )
    elif "AMD" in facts.pci_gpus:
        yield Finding(
            OK, "GPU", "an AMD GPU, which this TensorFlow build does not use (NVIDIA's only)"
        )
    elif platform.system == "Darwin":
        yield Finding(OK, "GPU", "TensorFlow has no GPU support on macOS: training uses the CPU")


def _driver_advice(facts: GpuFacts) -> str:
    error, platform = facts.driver.error, facts.platform
    if platform.wsl and not platform.container:
        return "update NVIDIA's driver in Windows (never install one in WSL), then wsl --update"
    if "version mismatch" in error:
        return "the driver was updated while in use; restart the machine"
    if platform.container:
        if "Unknown Error" in error:
            return "the container lost its GPU; restart it"
        return _RUNTIME
    if "device handle" in error or "GPU is lost" in error:
        return "a GPU does not answer (see dmesg); restart the machine"
    if "No devices" in error:
        return "the driver is loaded and finds no GPU it supports; see dmesg for NVRM lines"
    if "Insufficient Permissions" in error:
        return "this user may not open /dev/nvidia*; see its owner and group"
    return (
        "its kernel module is not loaded: sudo modprobe nvidia, or install the driver again (after "
        "a kernel update: with headers; with Secure Boot: signed)"
    )


def _take_match(gpu: Gpu, used: list[TensorFlowGpu]) -> TensorFlowGpu | None:
    """Remove from `used`, and return, what TensorFlow calls this GPU."""
    # CUDA may number GPUs in another order; a MIG device has its profile after the GPU's name.
    match = next((each for each in used if each.name.startswith(gpu.name)), None)
    if match:
        used.remove(match)
    return match


def _judge_used(gpu: Gpu, match: TensorFlowGpu, facts: GpuFacts) -> tuple[Verdict, str]:
    capability = match.capability or gpu.capability
    if capability and not _has_machine_code(capability, facts.tensorflow):
        return WARNING, (
            f"used by TensorFlow, which has no machine code for compute capability "
            f"{_text(capability)}: the first start compiles it for up to 30 minutes, later ones "
            "take it from ~/.nv/ComputeCache (CUDA_CACHE_MAXSIZE=4294967296 keeps all of it)"
        )
    used_mib = gpu.used_mib or 0
    if gpu.memory_mib and used_mib > _BUSY_SHARE * gpu.memory_mib:
        return WARNING, (
            f"used by TensorFlow, but other programs hold {used_mib / 1024:.1f} GiB of its "
            "memory: end them (nvidia-smi lists them), or choose another GPU with "
            "CUDA_VISIBLE_DEVICES"
        )
    if gpu.mig and gpu.mig_devices > 1:
        return OK, "used by TensorFlow: one of its MIG devices, as CUDA allows one per process"
    return OK, "used by TensorFlow"


def _own_reason(gpu: Gpu, facts: GpuFacts) -> str | None:
    """Return why TensorFlow does not use this GPU, if others may differ."""
    visible = facts.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and are_gpus_hidden(facts.environ):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs; unset it"
    if visible is not None and not _is_visible(gpu, visible):
        return f"CUDA_VISIBLE_DEVICES={visible} does not name it"
    if facts.num_gpus and facts.tensorflow.gpus:
        return f"num_gpus is {facts.num_gpus}"
    if gpu.compute_mode == "Prohibited":
        return f"its compute mode is Prohibited; sudo nvidia-smi -i {gpu.index} -c DEFAULT"
    if gpu.mig and not gpu.mig_devices:
        return (
            "MIG is on and it has no MIG device; create one (sudo nvidia-smi mig -cgi 0 -C), or "
            f"turn MIG off (sudo nvidia-smi -i {gpu.index} -mig 0)"
        )
    if facts.tensorflow.cuda and gpu.capability and not _can_run(gpu.capability, facts.tensorflow):
        return (
            f"compute capability {_text(gpu.capability)} is not supported: this TensorFlow build "
            f"has kernels for {listed(facts.tensorflow.capabilities)}; install a version built for "
            "it, or use --num_gpus 0"
        )
    if gpu.mig or (any(each.mig for each in facts.driver.gpus) and facts.tensorflow.gpus):
        return "with MIG, CUDA gives a process one MIG device only; name it in CUDA_VISIBLE_DEVICES"
    return None


def _shared_reason(facts: GpuFacts) -> str | None:
    """Return why TensorFlow uses none of the GPUs, the first cause first."""
    build, driver, platform = facts.tensorflow, facts.driver, facts.platform
    if build.gpus:
        return None
    if platform.system == "Windows":
        return "TensorFlow has no GPU support on Windows itself; run the project in WSL 2"
    if not build.cuda:
        return (
            f"TensorFlow {build.version} was built without CUDA (as tensorflow-cpu is, and the "
            f"packages for 64-bit Arm); {_GPU_EXTRA} on Linux x86-64"
        )
    if driver.cuda and driver.cuda[0] < build.cuda_major:
        needed = f" to {_min_driver(facts)} or newer" if _min_driver(facts) else ""
        return (
            f"the driver {driver.version} runs CUDA up to {_text(driver.cuda)}, and TensorFlow "
            f"{build.version} needs {build.cuda}; update the driver{needed}"
        )
    lacking, packages = facts.lacking_libraries, facts.lacking_packages
    if DRIVER_LIBRARY in lacking:
        return f"{DRIVER_LIBRARY} of the driver can't be found: {_driver_library_advice(facts)}"
    if lacking:
        # A package of a wrong version has this version after its name.
        no_extra = any(each.startswith("nvidia-") and "(" not in each for each in packages)
        why = "the extra gpu is not installed" if no_extra else "CUDA libraries do not fit"
        names = [f"{each} (found: {other})" if other else each for each, other in lacking.items()]
        return f"{why}, no {listed(names)}; {_GPU_EXTRA}"
    if unfit := [each for each in packages if "(" in each]:
        return f"packages do not fit: {listed(unfit)}; {_GPU_EXTRA}"
    return None


def _unknown_reason(facts: GpuFacts) -> str:
    """Return what TensorFlow itself says, if no rule explains it."""
    messages = facts.tensorflow.messages
    if ignored := [each for each in messages if "Ignoring visible gpu" in each]:
        return f"TensorFlow says: {ignored[0]}"
    if failed := [each for each in messages if "CUDA_ERROR" in each]:
        return f"CUDA can't be started: {failed[0]}; restart the machine or the container"
    return f"TensorFlow says: {(messages or ('nothing about it',))[-1]}"


def _driver_library_advice(facts: GpuFacts) -> str:
    if facts.platform.wsl:
        return "export LD_LIBRARY_PATH=/usr/lib/wsl/lib"
    if facts.platform.container:
        return "start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return "install the driver again, with its compute libraries (libnvidia-compute), and ldconfig"


def _is_visible(gpu: Gpu, visible: str) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES names a GPU, by index, UUID or MIG device."""
    for word in (each.strip() for each in visible.split(",")):
        if word.startswith("MIG-"):
            if gpu.mig:
                return True
        elif word.startswith("GPU-"):
            if gpu.uuid.startswith(word):
                return True
        elif word == str(gpu.index):
            return True
        elif not word.isdigit():
            return False  # CUDA ignores an invalid word and all after it.
    return False


def _can_run(capability: tuple[int, int], build: TensorFlowBuild) -> bool:
    """Return whether the build has machine code, or PTX that the driver can compile."""
    ptx = (each for each in build.capabilities if each.startswith("compute_"))
    is_compiled = any(_parse(each) <= capability for each in ptx)
    return is_compiled or _has_machine_code(capability, build)


def _has_machine_code(capability: tuple[int, int], build: TensorFlowBuild) -> bool:
    """Return whether a GPU runs the build's kernels as they are: same generation, not newer."""
    # TensorFlow's build makes machine code of sm_80, and both this and PTX of compute_80.
    codes = map(_parse, build.capabilities)
    fitting = (each[0] == capability[0] and each <= capability for each in codes)
    return not build.capabilities or any(fitting)


def _parse(capability: str) -> tuple[int, int]:
    """Return (8, 9) for sm_89 or compute_89, (12, 0) for sm_120a."""
    digits = re.sub(r"\D", "", capability)
    return int(digits[:-1]), int(digits[-1])


def _min_driver(facts: GpuFacts) -> str:
    return MIN_DRIVERS.get(facts.tensorflow.cuda_major, "")


def _text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
