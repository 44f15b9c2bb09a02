"""The command doctor."""

import json

import pytest

import run
from library.diagnosis import isolated
from library.diagnosis.isolated import Outcome
from library.errors import run_main
from project.commands import doctor


class CallHere:
    """An IsolatedCall in this process, which has TensorFlow already."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self, seconds):
        results = {}
        self.function(results.__setitem__, *self.arguments)
        return Outcome(results)


@pytest.fixture
def diagnose(capsys, monkeypatch, options, tmp_path):
    """Run doctor with the options of a tiny training. Return its exit code and its output."""
    monkeypatch.setattr(doctor, "_STAGE_SECONDS", 0.05)
    monkeypatch.setattr(doctor, "_STEP_SECONDS", 0.05)
    monkeypatch.setattr(isolated, "IsolatedCall", CallHere)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # which is then restored

    def diagnose(*more, has_data=True):
        words = options[:-1] if has_data else [*options[2:-1], f"--data_dir={tmp_path}/none"]
        code = run_main(run.main, ["doctor", *words, *more], "run.py")
        return code, capsys.readouterr()

    return diagnose


def test_doctor_measures_converted_data(diagnose, tmp_path):
    code, output = diagnose("--format=json")
    assert code == 0, output.err
    found = json.loads(output.out)
    assert found["speed"]["examples"] == 60
    assert found["speed"]["step"] > 0
    assert found["speed"]["reason"] == found["speed"]["lacks_data"] == ""
    assert found["gpu"]["tensorflow"]["version"]
    verdicts = {each["subject"]: each["verdict"] for each in found["findings"]}
    assert verdicts["bottleneck"] == "ok"
    assert not (tmp_path / "run").exists()


def test_doctor_without_data_reports_what_prevents_training(diagnose):
    code, output = diagnose("--num_gpus=99", "--channels=1", has_data=False)
    lines = {line.split()[1]: line for line in output.out.splitlines()}
    assert code == 1
    assert lines["GPUs"].startswith("problem")
    assert lines["data"].startswith("warning")
    assert "synthetic" in lines["inputs"]
    (error,) = output.err.splitlines()[-1:]
    assert error.startswith("run.py: error: 1 problem")
    assert "GPUs" in error


def test_doctor_reports_settings_that_train_refuses(diagnose):
    code, output = diagnose("--progressive=3=2")
    assert code == 1
    (line,) = (each for each in output.out.splitlines() if " settings " in each)
    assert line.startswith("problem")
    assert "progressive" in line


def test_doctor_refuses_other_formats(diagnose):
    code, output = diagnose("--format=md")
    assert code == 2
    assert "json" in output.err
