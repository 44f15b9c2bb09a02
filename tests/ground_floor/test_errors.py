import io
import json
import os
import subprocess
import sys

import pytest

from library import errors
from library.errors import printable, run_main
from tests.conftest import ROOT


def raises(error):
    def main(_):
        raise error

    return main


def test_what_stdouts_encoding_lacks_is_escaped_as_json_has_it(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    name = "für 日\N{CAT}.png"
    assert run_main(lambda _: print(json.dumps(name, ensure_ascii=False)), [], "run.py") == 0
    assert written.getvalue() == b'"f\\u00fcr \\u65e5\\ud83d\\udc08.png"\n'
    assert json.loads(written.getvalue()) == name


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.UserError("the run failed"), 1, "the run failed"),
        (errors.SettingsError("no such key"), 2, "no such key"),
        (errors.DataError("no images"), 3, "no images"),
        (errors.CheckpointError("damaged"), 4, "damaged"),
        (errors.DivergedError("NaN"), 5, "NaN"),
        (errors.StoppedError("terminated", 143), 143, "terminated"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory: a smaller batch_size or image_size needs less"),
        (OSError(28, "No space left on device", "a/b"), 1, "No space left on device: a/b"),
        (OSError("odd"), 1, "odd"),
        (
            ModuleNotFoundError("x", name="keras"),
            1,
            f"{sys.executable} lacks the package keras: `. .venv/bin/activate` chooses the Python "
            "that `make` has set up; pyproject.toml lists what another one needs",
        ),
        (
            ModuleNotFoundError("No module named 'project.x'", name="project.x"),
            1,
            "unexpected ModuleNotFoundError: No module named 'project.x' (--verbose shows where)",
        ),
        (ValueError("x"), 1, "unexpected ValueError: x (--verbose shows where)"),
    ],
)
def test_each_error_is_one_line_and_an_exit_code(capsys, error, code, text):
    assert run_main(raises(error), [], "run.py") == code
    assert capsys.readouterr().err == f"run.py: error: {text}\n"


@pytest.mark.parametrize("program", ["run.py", "convert_dataset.py"])
def test_a_python_without_the_packages_is_told_in_one_line(program):
    command = [sys.executable, "-S", str(ROOT / program), "--help"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: error: {sys.executable} lacks the package ")
    assert done.stderr.count("\n") == 1


def test_verbose_shows_the_traceback(capsys):
    assert run_main(raises(errors.DataError("no images")), ["--verbose"], "run.py") == 3
    assert "Traceback" in capsys.readouterr().err


def test_success_is_0_and_silent(capsys):
    assert run_main(lambda arguments: None, ["x"], "run.py") == 0
    assert capsys.readouterr() == ("", "")


def test_an_odd_name_in_an_error_stays_on_one_line(capsys):
    name = os.fsdecode(b"a\nb\xff\x1b[31m")
    run_main(raises(errors.DataError(name)), [], "run.py")
    assert capsys.readouterr().err == "run.py: error: a\\nb\\udcff\\x1b[31m\n"
    assert printable("Grüße, 猫") == "Grüße, 猫"


def test_a_closed_pipe_is_no_error():
    code = (
        "import sys; from library.errors import answer\n"
        "sys.exit(answer(lambda _: print('x\\n' * 100_000), [], 'run.py'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
