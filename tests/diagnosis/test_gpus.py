"""GPUs: what nvidia-smi says becomes facts, and these become a finding for each GPU.

The files in nvidia_smi/ have the form in which the drivers named by them write; their end is the
driver's branch.
"""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from library.diagnosis.findings import OK, PROBLEM, WARNING
from library.diagnosis.gpu_rules import judge_gpus
from library.machine import nvidia
from library.machine.gpu_facts import (
    GpuFacts,
    TensorFlowBuild,
    TensorFlowGpu,
    find_lacking,
    wanted_libraries,
)
from library.machine.hardware import Platform
from library.machine.nvidia import Driver, read_driver
from library.machine.tensorflow_build import gpu_messages

OUTPUTS = Path(__file__).parent / "nvidia_smi"
BUILD = TensorFlowBuild("2.21.0", "12.5.1", "9", ("sm_60", "sm_70", "sm_80", "sm_89", "compute_90"))
LINUX = Platform("Linux", "6.8.0")
CAPABILITIES = {
    "t4_535": "7.5",
    "k80_460_two": "3.7",
    "a100_mig_525": "8.0",
    "a100_mig_empty_525": "8.0",
    "wsl_546": "8.6",
    "rtx5090_570_two": "12.0",
}


def driver_of(name, code=0):
    """The Driver that nvidia-smi describes by one of the files."""
    (path,) = OUTPUTS.glob(f"{name}.*")
    text = path.read_text()

    def run(arguments):
        if arguments == ["-q", "-x"]:
            return code, text
        if "460" in name:  # an old driver
            return 2, 'Field "compute_cap" is not a valid field to query.\n'
        uuids = re.findall(r"<uuid>(.*)</uuid>", text)
        return 0, "".join(f"{uuid}, {CAPABILITIES[name]}\n" for uuid in uuids)

    return read_driver(run)


def facts_of(name, code=0, **changes):
    """Facts about a Linux machine of which nothing is wrong but what the changes say."""
    values = {"tensorflow": BUILD, "platform": LINUX, "is_driver_loaded": True}
    return GpuFacts(driver_of(name, code), **{**values, "has_device_files": True, **changes})


def using(*names, capability=None):
    """The build when TensorFlow uses GPUs."""
    return replace(BUILD, gpus=tuple(TensorFlowGpu(each, capability) for each in names))


def test_driver_of_one_gpu():
    driver = driver_of("t4_535")
    (gpu,) = driver.gpus
    assert (driver.version, driver.cuda, driver.error) == ("535.104.05", (12, 2), "")
    assert (gpu.name, gpu.memory_mib, gpu.used_mib) == ("Tesla T4", 15360, 2)
    assert (gpu.capability, gpu.mig) == ((7, 5), False)


def test_driver_of_mig_devices():
    (gpu,) = driver_of("a100_mig_525").gpus
    assert (gpu.mig, gpu.mig_devices) == (True, 2)


def test_old_driver_does_not_tell_capability():
    gpus = driver_of("k80_460_two").gpus
    assert [(each.index, each.used_mib, each.capability) for each in gpus] == [
        (0, 0, None),
        (1, 9120, None),
    ]


def test_driver_that_does_not_answer():
    def run(arguments):
        raise subprocess.TimeoutExpired(arguments, 4)

    assert "4 s" in read_driver(run).error


@pytest.mark.parametrize("text", ["", "<nvidia_smi_log>\n<gpu", "\0\xff", "<a/>"])
def test_output_of_any_kind_is_read(text):
    assert read_driver(lambda arguments: (0, text)).gpus == ()


NO_EXTRA = {
    "lacking_libraries": dict.fromkeys(wanted_libraries(BUILD)[1:], ""),
    "lacking_packages": ("nvidia-cublas-cu12", "nvidia-cudnn-cu12"),
}
T4, RTX = "Tesla T4", "NVIDIA GeForce RTX 5090"


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("t4_535", {"tensorflow": using(T4)}, [(OK, "used by")]),
        ("t4_535", NO_EXTRA, [(WARNING, "extra gpu .*'.\\[gpu\\]'")]),
        (
            "t4_535",
            {"lacking_libraries": {"libcudnn.so.9": "libcudnn.so.8"}},
            [(WARNING, r"libcudnn.so.9 .*libcudnn.so.8")],
        ),
        (
            "t4_535",
            {"lacking_packages": ("nvidia-cudnn-cu12 9.1.0 (needs >=9.3)",)},
            [(WARNING, "nvidia-cudnn-cu12 9.1.0")],
        ),
        (
            "t4_535",
            {"lacking_libraries": {"libcuda.so.1": ""}, "platform": replace(LINUX, container="D")},
            [(WARNING, "NVIDIA_DRIVER_CAPABILITIES")],
        ),
        ("t4_535", {"environ": {"CUDA_VISIBLE_DEVICES": ""}}, [(WARNING, "CUDA_VISIBLE_DEV.*''")]),
        ("t4_535", {"environ": {"CUDA_VISIBLE_DEVICES": "1"}}, [(WARNING, "CUDA_VISIBLE_DEVICE")]),
        ("t4_535", {"num_gpus": 0}, [(OK, "num_gpus is 0")]),
        ("t4_535", {"num_gpus": 1, **NO_EXTRA}, [(WARNING, "extra gpu"), (PROBLEM, "num_gpus")]),
        ("t4_535", {"tensorflow": replace(BUILD, cuda="")}, [(WARNING, "without CUDA")]),
        (
            "t4_535",
            {"tensorflow": replace(BUILD, messages=("failed call to cuInit: CUDA_ERROR_X",))},
            [(WARNING, "CUDA_ERROR_X")],
        ),
        ("t4_535", {"tensorflow": replace(BUILD, error="SIGILL")}, [(WARNING, "did not start")]),
        ("t4_535", {"platform": Platform("Windows", "11")}, [(WARNING, "WSL 2")]),
        # The driver runs CUDA 11.2, whatever else is wrong.
        ("k80_460_two", NO_EXTRA, [(WARNING, "11.2.*525.60.13")] * 2),
        (
            "a100_mig_525",
            {"tensorflow": using("NVIDIA A100-SXM4-40GB MIG 1g.5gb")},
            [(OK, "one of its MIG devices")],
        ),
        ("a100_mig_empty_525", {}, [(WARNING, "no MIG device")]),
        (
            "wsl_546",
            {"lacking_libraries": {"libcuda.so.1": ""}, "platform": replace(LINUX, wsl=2)},
            [(WARNING, "LD_LIBRARY_PATH=/usr/lib/wsl/lib")],
        ),
        # Only PTX fits it.
        (
            "rtx5090_570_two",
            {"tensorflow": using(RTX, RTX, capability=(12, 0))},
            [(WARNING, "12.0.*30 minutes")] * 2,
        ),
        (
            "rtx5090_570_two",
            {"tensorflow": replace(BUILD, capabilities=("sm_80", "sm_90"))},
            [(WARNING, "12.0 is not supported.*sm_90")] * 2,
        ),
        (
            "rtx5090_570_two",
            {"tensorflow": using(RTX, capability=(8, 9)), "num_gpus": 1},
            [(OK, "used by"), (WARNING, "num_gpus is 1")],
        ),
        (
            "rtx5090_570_two",
            {"tensorflow": using(RTX), "environ": {"CUDA_VISIBLE_DEVICES": "GPU-77ad0b4e-0"}},
            [(WARNING, "30 minutes"), (WARNING, "does not name it")],
        ),
        ("no_devices_550", {}, [(OK, "550.90.07 sees none")]),
        ("no_devices_550", {"pci_gpus": ("NVIDIA",)}, [(WARNING, "550.90.07 sees none")]),
        # Another GPU is used, so its libraries are there, whichever packages are not.
        (
            "rtx5090_570_two",
            {
                "tensorflow": replace(
                    using(RTX, capability=(9, 0)),
                    messages=("Ignoring visible gpu device (1) with core count 3", "other"),
                ),
                **NO_EXTRA,
            },
            [(OK, "used by"), (WARNING, "core count 3")],
        ),
    ],
)
def test_each_gpu_has_a_finding(name, changes, expected):
    findings = judge_gpus(facts_of(name, **changes))
    assert len(findings) == len(expected)
    for finding, (verdict, pattern) in zip(findings, expected, strict=True):
        assert finding.verdict == verdict, finding
        assert re.search(pattern, finding.text), finding


@pytest.mark.parametrize(
    ("name", "platform", "pattern"),
    [
        ("no_communication", LINUX, "modprobe"),
        ("no_communication", replace(LINUX, wsl=2), "in Windows"),
        ("no_communication", replace(LINUX, container="Docker"), "--gpus all"),
        ("version_mismatch", LINUX, "restart the machine"),
        ("unknown_error", replace(LINUX, container="Docker"), "lost its GPU"),
        ("gpu_lost", LINUX, "dmesg"),
        ("no_devices", LINUX, "NVRM"),
    ],
)
def test_driver_error_has_advice(name, platform, pattern):
    (finding,) = judge_gpus(facts_of(name, code=9, platform=platform))
    assert (finding.verdict, finding.subject) == (WARNING, "GPU driver")
    assert re.search(pattern, finding.text), finding


@pytest.mark.parametrize(
    ("changes", "verdict", "pattern"),
    [
        ({}, OK, "none found"),
        ({"pci_gpus": ("Intel", "NVIDIA")}, WARNING, "1 NVIDIA GPU .*no driver.*525"),
        ({"pci_gpus": ("AMD",)}, OK, "AMD"),
        ({"is_driver_loaded": True}, WARNING, "this system no GPU"),
        (
            {"is_driver_loaded": True, "platform": replace(LINUX, container="Docker")},
            WARNING,
            "Docker container no GPU.*--gpus all",
        ),
        ({"platform": replace(LINUX, wsl=1)}, WARNING, "set-version"),
        ({"platform": Platform("Darwin", "24.1.0")}, OK, "macOS"),
        ({"num_gpus": 2}, PROBLEM, "num_gpus is 2"),
    ],
)
def test_machine_without_nvidia_smi(changes, verdict, pattern):
    facts = replace(GpuFacts(Driver(), BUILD, LINUX), **changes)
    finding = judge_gpus(facts)[-1]
    assert finding.verdict == verdict
    assert re.search(pattern, finding.text), finding


def test_busy_gpu_is_a_warning():
    driver = driver_of("t4_535")
    gpus = (replace(driver.gpus[0], used_mib=14000),)
    facts = replace(facts_of("t4_535", tensorflow=using(T4)), driver=replace(driver, gpus=gpus))
    (finding,) = judge_gpus(facts)
    assert finding.verdict == WARNING
    assert "13.7 GiB" in finding.text


def test_lacking_libraries_name_other_versions():
    found = find_lacking(
        wanted_libraries(BUILD), ["libcuda.so.1", "libcudnn.so.8", "libcublasLt.so.12"]
    )
    assert "libcuda.so.1" not in found
    assert found["libcudnn.so.9"] == "libcudnn.so.8"
    assert found["libcublas.so.12"] == ""


def test_gpu_messages_lack_time_and_place():
    line = "{}0000 00:00:1796048120.600871   28234 cudart_stub.cc:31] Could not find cuda drivers\n"
    log = "WARNING: All log messages before cuda\n" + line.format("I") + line.format("W")
    assert [*gpu_messages(log)] == ["Could not find cuda drivers"]


@pytest.fixture
def machine_with_gpus(monkeypatch, tmp_path):
    """A machine whose nvidia-smi lists two GPUs; None were counted yet."""
    script = tmp_path / "nvidia-smi"
    names = "GPU 0: Tesla T4 (UUID: GPU-2f0d)\nGPU 1: Tesla T4 (UUID: GPU-3a1e)"
    script.write_text(f"#!/bin/sh\necho '{names}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvidia.log_unused_gpus.cache_clear()
    yield
    nvidia.log_unused_gpus.cache_clear()


@pytest.mark.parametrize(
    ("num_gpus", "visible", "is_said"),
    [(None, None, True), (None, "3", True), (0, None, False), (None, "", False), (None, "-1", 0)],
)
def test_start_on_cpu_names_doctor(
    num_gpus, visible, is_said, machine_with_gpus, monkeypatch, caplog
):
    from project import assembly
    from project.settings import read_settings

    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    words = [] if num_gpus is None else ["--num_gpus", str(num_gpus)]
    settings = read_settings(words)
    assembly.start_devices(settings)
    assembly.start_devices(settings)
    lines = [each.getMessage() for each in caplog.records if "doctor" in each.getMessage()]
    assert len(lines) == int(is_said)
    assert all("2 NVIDIA GPUs" in each for each in lines)
