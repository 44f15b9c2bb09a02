"""The machine, its packages and disks, and the findings about them."""

import re
from dataclasses import replace

import pytest

from library.diagnosis.findings import OK, PROBLEM, WARNING, Finding, format_findings
from library.diagnosis.isolated import IsolatedCall
from library.diagnosis.machine_rules import judge_disks, judge_machine, judge_packages
from library.diagnosis.speed import Choices, Speed, judge_speed
from library.machine import disk as disk_module
from library.machine.disk import Disk, measure_disk
from library.machine.hardware import Cpu, Memory, Platform, read_cpu, read_memory, read_platform
from library.machine.packages import (
    Packages,
    find_unmet,
    installed_version,
    read_lock,
    read_packages,
)

CPU = Cpu("a CPU", "x86_64", ("AVX", "AVX2"), cores=8, usable_cores=8)
MEMORY = Memory(32_000_000_000, 20_000_000_000)
PACKAGES = Packages("3.12.4", ">=3.11,<3.14", 3, {}, (), {})
DISK = Disk("out/current", True, 80_000_000_000, 3e8, 9e8)
SPEED = Speed(
    "dataset", "", 2000, 10**8, 32, {"read": 9e3, "decode": 800.0}, "more cores", 6.0, 0.4,
    device="the CPU",
)  # fmt: skip


def write_tree(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quota", "limit"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n", "memory.max": "4000000000\n"}, 2, 4e9),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        # A limit of the parent holds, too.
        (
            "0::/a/b\n",
            {"a/b/cpu.max": "400000 100000", "a/cpu.max": "150000 100000", "a/memory.max": "5"},
            1.5,
            5,
        ),
        (
            "4:memory:/x\n1:cpu,cpuacct:/x\n",
            {
                "cpu/x/cpu.cfs_quota_us": "50000\n",
                "cpu/x/cpu.cfs_period_us": "100000\n",
                "memory/x/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.limit_in_bytes": "3000000000\n",
            },
            0.5,
            3e9,
        ),
        # In a container of version 1, the path is that of the machine.
        ("1:cpu:/docker/12\n", {"cpu/cpu.cfs_quota_us": "-1"}, None, None),
    ],
)
def test_limits_of_container(cgroup, files, quota, limit, tmp_path):
    write_tree(tmp_path, proc__self__cgroup=cgroup, proc__meminfo="MemTotal: 8000000 kB\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert read_cpu(tmp_path).quota == quota
    assert read_memory(tmp_path).limit == limit


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        ("model name : Xeon\nflags : fpu avx avx2 avx512f amx_tile\n", "AVX AVX2 AVX512 AMX"),
        ("processor : 0\nFeatures : fp asimd sve bf16\n", "NEON SVE BF16"),
        ("flags : fpu sse4_2\n", ""),
    ],
)
def test_instructions(text, instructions, tmp_path):
    cpu = read_cpu(write_tree(tmp_path, proc__cpuinfo=text))
    assert cpu.instructions == tuple(instructions.split())


@pytest.mark.parametrize(
    ("kernel", "wsl"),
    [
        ("5.15.90.1-microsoft-standard-WSL2", 2),
        ("4.4.0-19041-Microsoft", 1),
        ("6.8.0-45-generic", 0),
    ],
)
def test_platform(kernel, wsl, tmp_path):
    write_tree(tmp_path, proc__sys__kernel__osrelease=kernel)
    assert read_platform(tmp_path, {}) == replace(read_platform(tmp_path, {}), wsl=wsl)
    (tmp_path / ".dockerenv").touch()
    assert read_platform(tmp_path, {}).container == "Docker"
    assert (
        read_platform(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).container == "Kubernetes"
    )


@pytest.mark.parametrize(
    ("changes", "subject", "verdict"),
    [
        ({}, "CPU", OK),
        ({"instructions": ("FMA",)}, "CPU", PROBLEM),
        ({"instructions": ("AVX",)}, "CPU", WARNING),
        ({"instructions": None, "architecture": "arm64"}, "CPU", OK),
        ({"instructions": ("NEON",), "architecture": "aarch64"}, "CPU", OK),
        ({}, "cores", OK),
        ({"quota": 1.5}, "cores", WARNING),
        ({"quota": 8.0}, "cores", OK),
    ],
)
def test_judge_cpu(changes, subject, verdict):
    findings = judge_machine(replace(CPU, **changes), MEMORY, Platform("Linux", "6"))
    assert {each.subject: each.verdict for each in findings}[subject] == verdict


def test_quota_sets_threads():
    findings = judge_machine(replace(CPU, quota=2.0), MEMORY, Platform("Linux", "6"))
    (text,) = (each.text for each in findings if each.subject == "cores")
    assert "--intra_op_threads 2 --num_parallel_calls 8" in text


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [
        (MEMORY, OK),
        (replace(MEMORY, available=3_000_000_000), WARNING),
        (replace(MEMORY, limit=1_000_000_000), PROBLEM),
    ],
)
def test_judge_memory(memory, verdict):
    findings = judge_machine(CPU, memory, Platform("Linux", "6"))
    assert [each.verdict for each in findings if each.subject == "memory"] == [verdict]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, OK),
        ({"free": 1_000_000_000}, WARNING),
        ({"free": 1_000_000}, PROBLEM),
        ({"write": 5e6}, WARNING),
        ({"error": "Read-only file system"}, PROBLEM),
        ({"error": "Read-only file system", "is_run": False}, OK),
        ({"write": None, "read": None}, OK),
    ],
)
def test_judge_disk(changes, verdict):
    (finding,) = judge_disks([replace(DISK, **changes)])
    assert finding.verdict == verdict


def test_measure_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_module, "_BLOCKS", 1)
    disk = measure_disk(tmp_path / "no" / "folder", is_run=True)
    assert disk.write > 0
    assert disk.error == ""
    assert list(tmp_path.iterdir()) == []


def test_read_only_disk_is_an_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk_module.tempfile, "TemporaryFile", refuse)
    assert measure_disk(tmp_path, is_run=True).error == "Read-only file system"


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({}, OK, "3.12.4"),
        ({"python": "3.9.2"}, PROBLEM, ">=3.11"),
        ({"python": "3.14.0"}, PROBLEM, ">=3.11"),
        ({"python": "3.9.2", "requires_python": ""}, OK, "3.9.2"),
        ({"missing": ("numpy 1.26.4 (needs >=2)",)}, PROBLEM, "numpy"),
        ({"differing": {"keras": ("3.16.0", "3.15.0")}}, WARNING, "keras 3.16.0"),
        ({"locked": None}, OK, "no requirements.lock"),
        ({"missing_extras": {"serve": ("uvicorn",)}}, OK, r"serve \(uvicorn\)"),
    ],
)
def test_judge_packages(changes, verdict, word):
    findings = [*judge_packages(replace(PACKAGES, **changes))]
    assert any(each.verdict == verdict and re.search(word, each.text) for each in findings)
    assert {OK, verdict} == {OK, *(each.verdict for each in findings)}


def test_read_packages_compares_with_lock(tmp_path):
    (tmp_path / "requirements.lock").write_text(
        "numpy==1.0 \\\n    --hash=sha256:00\n    # via keras\nnot-there==2.0\n"
        "pytest==1.0 ; sys_platform == 'unknown' \\\n    --hash=sha256:00\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.11"\ndependencies = ["numpy>=99", "pytest"]\n'
        '[project.optional-dependencies]\nodd = ["not-there>=1"]\ndevelop = ["not-there"]\n'
    )
    found = read_packages(tmp_path)
    assert [*found.differing] == ["numpy"]
    assert found.locked == 1
    assert [each.split()[0] for each in found.missing] == ["numpy"]
    assert found.missing_extras == {"odd": ("not-there",)}
    assert found.is_python_supported


def test_lock_of_project_is_read():
    found = read_packages()
    assert found.locked > 50
    assert found.missing == ()


def test_read_lock_takes_markers_into_account():
    text = "a==1.0 ; python_version >= '3'\nb==2.0 ; python_version < '3'\nC_d==1+cpu\n"
    assert [*read_lock(text)] == [("a", "1.0"), ("c-d", "1+cpu")]


def test_find_unmet_looks_into_nested_extras():
    lacking = {each.split()[0] for each in find_unmet(["fsspec[no-such]", "tensorflow[and-cuda]"])}
    assert lacking <= {each for each in lacking if each.startswith("nvidia-")}
    assert bool(lacking) != bool(installed_version("nvidia-cudnn-cu12"))


def texts_of(speed, choices):
    return {each.subject: each for each in judge_speed(speed, choices)}


def test_step_is_the_bottleneck_of_a_cpu():
    found = texts_of(SPEED, Choices())
    assert "80 images/s" in found["training step"].text
    # Both share the cores: 2000 * (1/800 + 1/80).
    assert re.match(
        "the training step; .* 2,000 images takes about 2[78] s", found["bottleneck"].text
    )


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        (Choices(gpu_capability=(8, 0)), "--dtype bfloat16, or --xla"),
        (Choices(gpu_capability=(7, 5)), "--dtype float16"),
        (Choices(gpu_capability=(6, 1), xla=True), "up: a larger --batch_size"),
        (Choices(gpu_capability=(8, 0), dtype="float16"), "up: --xla"),
        (Choices(has_bfloat16=True), "--dtype bfloat16"),
    ],
)
def test_advice_on_step(choices, word):
    assert word in texts_of(SPEED, choices)["bottleneck"].text


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        (Choices(gpu_capability=(8, 0), free_memory=10**9), "more cores, or --cache memory"),
        (Choices(gpu_capability=(8, 0), free_memory=10**8), "up: more cores$"),
        (Choices(gpu_capability=(8, 0), free_memory=10**9, cache="disk"), "up: more cores$"),
    ],
)
def test_advice_on_inputs(choices, word):
    finding = texts_of(replace(SPEED, step=0.01), choices)["bottleneck"]
    assert finding.verdict == WARNING
    assert re.search(word, finding.text)


def test_speed_that_was_not_measured():
    found = texts_of(Speed(reason="no time", lacks_data="no manifest"), Choices())
    assert {name: each.verdict for name, each in found.items()} == {
        "data": WARNING,
        "inputs": WARNING,
    }


def test_format_findings_aligns():
    lines = format_findings([Finding(OK, "CPU", "x"), Finding(PROBLEM, "Python", "y")])
    assert lines == ["ok       CPU     x", "problem  Python  y"]


def send_and(send, how):
    send("first", 1)
    if how == "fail":
        raise ValueError("wrong\nmore")
    if how == "crash":
        import os

        os.abort()
    if how == "hang":
        import time

        time.sleep(60)


@pytest.mark.parametrize(("how", "error"), [("fail", "^wrong$"), ("crash", "SIGABRT")])
def test_isolated_call_reports_how_it_ended(how, error):
    with IsolatedCall(send_and, how) as call:
        outcome = call.wait(60)
    assert outcome.results == {"first": 1}
    assert re.search(error, outcome.error)
    assert not outcome.is_late


def test_isolated_call_is_not_awaited_for_ever():
    with IsolatedCall(send_and, "hang") as call:
        assert call.wait(0.01).is_late
