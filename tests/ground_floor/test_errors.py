import io
import json
import os
import signal
import subprocess
import sys

import pytest

from library import errors
from library.errors import first_line, printable, reason_of, run_main
from tests.conftest import ROOT
from tests.helpers.ready_process import ready_process


class ResourceExhaustedError(Exception):
    """Has the name of TensorFlow's error."""


class InternalError(Exception):
    """So has this."""


def raises(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.UserError("the run failed"), 1, "the run failed"),
        (errors.SettingsError("no such key"), 2, "no such key"),
        (errors.DataError("no images"), 3, "no images"),
        (errors.CheckpointError("damaged"), 4, "damaged"),
        (errors.DivergedError("NaN"), 5, "NaN"),
        (MemoryError(), 1, "out of memory"),
        (ResourceExhaustedError("OOM when allocating\ntensor"), 1, "batch_size"),
        (InternalError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), 1, "batch_size"),
        (InternalError("Blas failed"), 1, "unexpected InternalError"),
        (OSError(28, "No space left on device", "a/b"), 1, "No space left on device: a/b"),
        (OSError("odd"), 1, "odd"),
        (ModuleNotFoundError("x", name="keras"), 1, "the package keras"),
        (ModuleNotFoundError("No module 'project.x'", name="project.x"), 1, "--verbose"),
        (ValueError("x"), 1, "ValueError: x"),
    ],
)
def test_run_main_shows_one_line_and_returns_exit_code(capsys, error, code, words):
    assert run_main(raises(error), [], "run.py") == code
    shown = capsys.readouterr().err
    assert shown.startswith("run.py: error: ")
    assert words in shown
    assert shown.count("\n") == 1


def test_run_main_finds_lack_of_memory_behind_another_error(capsys):
    def main(_):
        try:
            raise ResourceExhaustedError
        except ResourceExhaustedError as error:
            raise errors.CheckpointError("cannot load x") from error

    assert run_main(main, [], "run.py") == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.StoppedError("Stopped in epoch 3.", 143), 143, "Stopped in epoch 3."),
        (KeyboardInterrupt(), 130, "Interrupted. "),
        (errors.TerminatedError(), 143, "Terminated. "),
    ],
)
def test_signal_is_no_error(capsys, error, code, text):
    assert run_main(raises(error), [], "run.py") == code
    shown = capsys.readouterr().err
    assert shown.startswith(text)
    assert "error" not in shown
    assert shown.count("\n") == 1


ENDLESS = """print("ready", flush=True)
        while True:
            pass"""
STUBBORN = """with contextlib.suppress(KeyboardInterrupt):
            print("ready", flush=True)
            while True:
                pass
        while True:
            pass"""
# "ready" comes from another thread, once the main thread has released the GIL: in native code,
# where no handler of Python's is called.
NATIVE = """sys.setswitchinterval(1000)
        _thread.start_new_thread(print, ("ready",), {"flush": True})
        hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1)"""
WAITING = """
import _thread, contextlib, hashlib, sys
from library.errors import if_interrupted, run_main

def main(_):
    with if_interrupted("All of it is kept."):
        %s

sys.exit(run_main(main, [], "x.py"))
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")],
)
def test_signal_is_answered_and_ends_a_command(number, code, word):
    with ready_process(WAITING % ENDLESS) as process:
        process.send_signal(number)
        reply, end = process.communicate(timeout=60)[1].splitlines()
        assert "again" in reply
        assert end == f"{word}. All of it is kept."
        assert process.returncode == code


@pytest.mark.parametrize("code", [STUBBORN, NATIVE], ids=["python", "native"])
def test_signal_is_answered_at_once_and_a_second_one_ends_the_process(code):
    with ready_process(WAITING % code) as process:
        process.send_signal(signal.SIGINT)
        assert "again" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 143


def test_run_main_returns_0_silently_on_success(capsys):
    assert run_main(lambda arguments: None, ["x"], "run.py") == 0
    assert capsys.readouterr() == ("", "")


def test_run_main_shows_traceback_if_verbose(capsys):
    assert run_main(raises(errors.DataError("no images")), ["--verbose"], "run.py") == 3
    assert "Traceback" in capsys.readouterr().err


def test_run_main_ignores_closed_pipe():
    code = (
        "import sys; from library.errors import run_main\n"
        "sys.exit(run_main(lambda _: print('x\\n' * 100_000), [], 'run.py'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize("program", ["run.py", "convert_dataset.py"])
def test_missing_packages_are_one_line(program):
    command = [sys.executable, "-S", str(ROOT / program), "--help"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: error: the package ")
    assert sys.executable in done.stderr
    assert done.stderr.count("\n") == 1


def test_stdout_escapes_what_its_encoding_lacks_as_json(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    name = "für 日\N{CAT}.png"
    assert run_main(lambda _: print(json.dumps(name, ensure_ascii=False)), [], "run.py") == 0
    assert written.getvalue() == b'"f\\u00fcr \\u65e5\\ud83d\\udc08.png"\n'
    assert json.loads(written.getvalue()) == name


def test_printable_escapes_control_characters(capsys):
    name = os.fsdecode(b"a\nb\xff\x1b[31m")
    run_main(raises(errors.DataError(name)), [], "run.py")
    assert capsys.readouterr().err == "run.py: error: a\\nb\\udcff\\x1b[31m\n"
    assert printable("Grüße, 猫") == "Grüße, 猫"


def test_reasons_are_one_line():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert reason_of(OSError(28, "No space left on device", "a")) == "No space left on device"
    assert reason_of(OSError("one\ntwo")) == "one"
    assert reason_of(ValueError("odd")) == "odd"


def test_smaller_batch_is_advised_only_if_there_is_one(capsys):
    def compute(_):
        import keras

        keras.Sequential([keras.layers.Lambda(raises(MemoryError()))])(keras.ops.ones((1, 1)))

    assert run_main(raises(MemoryError()), [], "run.py") == 1
    assert "batch_size" not in capsys.readouterr().err
    assert run_main(compute, [], "run.py") == 1
    assert "batch_size" in capsys.readouterr().err
