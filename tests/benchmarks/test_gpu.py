"""The benchmark of a GPU: contenders that take turns."""

import time
from dataclasses import replace

from benchmarks import gpu


def test_compare_sends_ratio_to_reference():
    sent = {}
    sizes = replace(gpu.SIZES[True], round_seconds=0.02)
    contenders = {
        "slow": lambda steps: time.sleep(0.004 * steps),
        "fast": lambda steps: time.sleep(0.001 * steps),
    }
    gpu.compare(sent.__setitem__, sizes, "slow", contenders)
    assert 1.5 < sent["ratio fast / slow"] < 6
    assert sent["fast: images/s"] > sent["slow: images/s"]


def test_describe_names_failure():
    text = gpu.describe({"device": "CPU", "XLA: images/s": 1234.5, "error": "no memory"})
    assert "1,23" in text
    assert "no memory" in text
