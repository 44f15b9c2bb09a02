import pickle
import subprocess
import sys

from tests.conftest import ROOT
from tests.dataset.test_workers import Act

COMMAND = [sys.executable, "-W", "ignore", "-m", "library.dataset.worker"]


def answers(*messages):
    content = b"".join(map(pickle.dumps, messages))
    run = subprocess.run(COMMAND, input=content, capture_output=True, cwd=ROOT, check=True)
    read, rest = [], run.stdout
    while rest:
        read.append(pickle.loads(rest))
        rest = rest[len(pickle.dumps(read[-1], protocol=5)) :]
    return read


def test_it_says_that_it_is_ready_answers_and_ends_with_its_input():
    assert answers((Act(), 1 << 30, 60), [1, 2], []) == ["ready", [(True, 2), (True, 4)], []]


def test_an_error_is_an_answer():
    assert answers((Act(), 1 << 30, 60), ["raise"])[1] == [(False, "two lines")]


def test_tensorflow_is_not_imported():
    code = (
        "import sys, library.dataset.worker, library.dataset.encode_record; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
