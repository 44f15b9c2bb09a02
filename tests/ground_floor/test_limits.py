import subprocess
import sys

import keras
import pytest

from library.errors import CheckpointError
from library.limits import check_output_sizes, limits
from tests.conftest import ROOT

PROGRAM = """
import sys, time
from library.errors import CheckpointError
from library.limits import limits
with limits(CheckpointError("the file x"), {seconds}, 1 << 26):
    {block}
"""


@pytest.mark.parametrize(
    ("block", "seconds", "words"),
    [
        ("time.sleep(600)", 0.3, "more than 0.3 s"),
        ("content = b'x' * (1 << 28); time.sleep(600)", 500, "more than 0.067 GB of memory"),
    ],
)
def test_limits_end_the_process(block, seconds, words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(block=block, seconds=seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == CheckpointError.exit_code
    assert done.stderr.count("\n") == 1
    assert f"error: the file x: it takes {words}" in done.stderr


def test_output_beyond_half_of_the_memory_is_named(monkeypatch):
    pixels = keras.Input((100, 100, 3))
    network = keras.Model(pixels, keras.layers.Conv2D(50, 3, padding="same", name="wide")(pixels))
    needed = 4 * 100 * 100 * 50
    monkeypatch.setattr("library.limits.memory_bytes", lambda: 2 * needed)
    check_output_sizes(network)
    monkeypatch.setattr("library.limits.memory_bytes", lambda: 2 * needed - 1)
    with pytest.raises(ValueError, match="layer wide"):
        check_output_sizes(network)


def test_block_within_limits_goes_on():
    with limits(CheckpointError("x"), 60, 1 << 40):
        pass
    with pytest.raises(ValueError, match="own"), limits(CheckpointError("x"), 60):
        raise ValueError("its own")
