"""What native libraries write to stderr, in a command that succeeds, fails or crashes."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import logging, os, signal, sys, warnings
from library.errors import DataError, run_main

def main(arguments):
    os.write(2, b"libfoo: warning\\n" * 50 + b"libfoo: last words\\n")
    warnings.warn("a Python warning")
    logging.getLogger("library.x").info("logged")
    print("printed", file=sys.stderr)
    END

code = run_main(main, sys.argv[1:], "x.py")
os.write(2, b"after\\n")
sys.exit(code)
"""
OWN = ["logged", "printed"]


def run(end, *arguments):
    command = [sys.executable, "-c", CODE.replace("END", end), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        ("pass", 0, None),
        ("raise DataError('no images')", 3, "x.py: error: no images"),
        ("raise OSError(28, 'full', 'a')", 1, "x.py: error: full: a"),
    ],
)
def test_native_messages_are_dropped(end, code, line):
    assert run(end) == (code, [*OWN, *([line] if line else []), "after"])


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise ValueError('x')", 1),
        ("os.abort()", -6),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
def test_last_native_messages_are_shown_if_the_process_fails(end, code):
    found, lines = run(end)
    assert found == code
    assert lines[:2] == OWN
    assert "libfoo: last words" in lines
    assert 2 < len(lines) < 30


def test_verbose_shows_all():
    code, lines = run("pass", "--verbose")
    assert code == 0
    assert lines.count("libfoo: warning") == 50
    assert any("a Python warning" in line for line in lines)
