"""The project's settings: every key, the shipped files, the forerunners' options and files."""

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.configuration.reader import CommandLineOnly
from library.configuration.schema import keys_of
from library.errors import DataError, SettingsError
from project.hyperparameters import Hyperparameters, keywords_of
from project.settings import Project, read_settings
from run import COMMANDS
from tests.conftest import ROOT
from tests.helpers.settings import KEYS, WHICH, write_settings


@pytest.fixture(autouse=True)
def _beside_the_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")


def shell(*arguments):
    """Run a new interpreter. Return (its CPU seconds, the finished process).

    Wall-clock time would depend on what else the machine does.
    """
    begun = os.times()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    ended = os.times()
    seconds = ended.children_user + ended.children_system
    return seconds - begun.children_user - begun.children_system, done


def test_every_key_has_a_meaning_and_a_valid_default():
    names = [each.name for each in (*KEYS, *keys_of(CommandLineOnly))]
    assert len(names) == len(set(names)), "two models have the same key"
    for each in KEYS:
        assert each.meaning, each.name
        assert len(each.meaning.splitlines()) == 1, each.name
        assert each.check(each.default) == each.default, each.name


FORERUNNERS = """
config_file cf config_set cs hyperparameter_file hpf hyperparameter_set hps model m data_dir dd
model_dir md best_model_dir bmd train_epochs te epochs_between_evals ebe batch_size bs
train_batch_size tbs eval_batch_size ebs max_train_steps mts max_eval_steps mes learning_rate lr
random_seed rs save_summary_steps sss keep_checkpoint_max kcm num_parallel_reads npr
num_parallel_calls npc prefetch_batches pb
"""


def test_short_options_are_the_forerunners():
    shorts = {each.name: each.short for each in (*KEYS, *keys_of(CommandLineOnly))}
    words = iter(FORERUNNERS.split())
    for name, short in zip(words, words, strict=True):
        assert shorts[name] == short


def test_without_arguments():
    settings = read_settings([], COMMANDS)
    assert (settings.command, settings.paths, settings.dry_run) == ("train", (), False)
    assert settings.answer is None
    assert settings.project.train_batch_size == settings.project.batch_size
    assert settings.project.model_dir == "out/current/checkpoints"
    assert settings.project.best_model_dir == "out/current/best"
    assert settings.values["xla"].provenance == "default"


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command):
    assert read_settings(["--dry_run", command], COMMANDS).command == command
    assert read_settings(["--dry_run", command], COMMANDS).dry_run


def test_commands_of_the_forerunner():
    line = "--xla --epochs_between_evals 1000 --train_epochs 10000 --learning_rate 0.0001"
    settings = read_settings(line.split())
    assert settings.project.xla is True
    assert settings.project.epochs_between_evals == 1000
    assert settings.hyperparameters.learning_rate == 1e-4
    assert settings.values["learning_rate"].provenance == "command line"
    assert read_settings(["--config_set", "gtx1080ti", "--xla"]).project.train_batch_size == 512


FORERUNNER_PROJECT = """\
default: &default
  data_dir: dataset
  train_epochs: 30
  batch_size: 128

gtx1080ti:
  <<: *default
  train_batch_size: 512

thinkpadx201t:
  <<: *default
  train_batch_size: 10
  train_epochs: 10
  epochs_between_evals: 1
  random_seed: 0
"""
FORERUNNER_HYPERPARAMETERS = """\
default: &DEFAULT
  learning_rate: 1e-4
  dropout_rate: 0.5
  l2_regularization: 1e-8
  xentropy_label_smoothing: 0.
  adam_beta1: 0.9
  adam_beta2: 0.999
  adam_epsilon: 1e-8

mobilenet:
  <<: *DEFAULT
  learning_rate: 1e-5
  fine_tuning: True
"""


def test_files_of_the_forerunner(tmp_path):
    given = write_settings(tmp_path, FORERUNNER_PROJECT, FORERUNNER_HYPERPARAMETERS)
    settings = read_settings([*given, "-cs", "thinkpadx201t", "-hps", "mobilenet"])
    assert settings.project.train_batch_size == 10
    assert settings.project.eval_batch_size == 128
    assert settings.project.train_epochs == 10
    assert settings.hyperparameters.learning_rate == 1e-5
    assert settings.hyperparameters.fine_tuning is True
    assert settings.hyperparameters.l2_regularization == 1e-8


@pytest.mark.parametrize(
    "name", ["cache_dir", "ensemble", "validation_name", "application_weights"]
)
def test_url_is_refused_for_local_paths(tmp_path, name):
    with pytest.raises(SettingsError, match=f"^--{name} .*local path.*'gs://b/x'$"):
        read_settings([f"--{name}", "gs://b/x"])
    value = "[out/a, 'gs://b/x']" if name == "ensemble" else "gs://b/x"
    texts = ["default:\n", "default:\n"]
    is_hyperparameter = name in Hyperparameters.model_fields
    texts[is_hyperparameter] += f"other:\n  {name}: {value}\n"
    given = write_settings(tmp_path, *texts)
    place = rf"{tmp_path}/{'h' if is_hyperparameter else 'p'}.yaml:3 \(set other\)"
    with pytest.raises(SettingsError, match=f"^{name} at {place} .*local path.*'gs://b/x'$"):
        read_settings(given)


@pytest.mark.parametrize("name", ["data_dir", "run_dir", "checkpoint_path", "hub_handle"])
def test_url_is_accepted(name):
    assert read_settings([f"--{name}", "gs://b/x"]).values[name].value == "gs://b/x"


LARGEST = {
    "random_seed": 2**32 - 1,
    "image_size": 65_535,
    "image_width": 65_535,
    "batch_size": 2**31 - 1,
    "train_batch_size": 2**31 - 1,
    "eval_batch_size": 2**31 - 1,
    "steps_per_execution": 2**31 - 1,
    "width": 2**31 - 1,
    "intra_op_threads": 1024,
    "inter_op_threads": 1024,
}


@pytest.mark.parametrize("name", LARGEST)
def test_integers_are_no_larger_than_tensorflow_takes(name):
    largest = LARGEST[name]
    assert read_settings([f"--{name}", str(largest)]).values[name].value == largest
    with pytest.raises(SettingsError, match=rf"^--{name} .*{largest}.* not {largest + 1}$"):
        read_settings([f"--{name}", str(largest + 1)])


LINES = (
    "default:|&a|*a|<<: *a|<<: [*a]|x-y: &b|  batch_size: 3|  batch_size: x|  xla: yes|- 1|\t|  a:"
    "|---|...|  learning_rate: 1e-4|  augmentations: [a, b|]|  model: 'x|'|  model: |    text|{}"
)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(LINES.split("|")) | st.text(max_size=6), max_size=10).map("\n".join),
    st.lists(st.sampled_from(["--help", "--list_sets", "-bs", "0", "3", "-cs", "a"]), max_size=3),
)
def test_any_settings_are_read_or_refused_in_one_line(tmp_path_factory, text, arguments):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="ignore")
    for option in ("--config_file", "--hyperparameter_file"):
        problem = ""
        try:
            read_settings([option, str(path), *arguments])
        except SettingsError as error:
            problem = str(error)
        assert len(problem.splitlines()) < 2


def test_reads_ten_thousand_keys_fast(tmp_path):
    keys = [each for each in KEYS if each.name in Project.model_fields and each.name not in WHICH]
    values = {each.name: each.default for each in keys if each.default}
    values |= {name: [*value] for name, value in values.items() if isinstance(value, tuple)}
    lines = [f"  {name}: {value}  # {'why ' * 18}\n" for name, value in values.items()]
    sets = "".join(f"set{i}:\n{''.join(lines)}" for i in range(10_000 // len(lines) + 1))
    given = write_settings(tmp_path, sets)
    assert len(sets) > 900_000
    begun = time.process_time()
    assert (
        read_settings([*given, "-cs", "set9"]).values["data_dir"].provenance.endswith("(set set9)")
    )
    assert time.process_time() - begun < 2


LOADED = """
import sys, run
from library.errors import run_main
run_main(run.main, {}, "run.py")
print([name for name in ("tensorflow", "keras", "numpy") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--print_config"], 0), (["--list_sets"], 0), (["-lr", "x"], 2), (["x"], 2)],
)
def test_answers_fast_without_tensorflow(arguments, code):
    seconds, done = shell("run.py", *arguments)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == (1 if code else 0)
    # Measured at 0.25 s.
    assert seconds < 0.6
    _, done = shell("-c", LOADED.format(arguments))
    assert done.stdout.splitlines()[-1] == "[]"


def test_options_of_the_estimator_framework():
    words = "--train_steps 7 --eval-freq 3 --label_smoothing 0.1 --replicas_to_aggregate 2"
    settings = read_settings(words.split())
    assert settings.project.max_train_steps == 7
    assert settings.project.max_eval_steps == 3
    assert settings.hyperparameters.xentropy_label_smoothing == 0.1
    assert settings.hyperparameters.gradient_accumulation_steps == 2
    with pytest.raises(SettingsError, match=r"max_train_steps .*--train_steps and"):
        read_settings(["--train_steps", "7", "--max_train_steps", "7"])
    shown = read_settings(["--help"]).answer
    assert "--label_smoothing" in shown


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--fit zoom", "fit"),
        ("--crop_fraction 0.5", "--fit crop"),
        ("--fit pad --crop_fraction 1", "--fit crop"),
        ("--fit crop --crop_fraction 0", "crop_fraction"),
        ("--fit crop --crop_fraction 1.01", "crop_fraction"),
    ],
)
def test_impossible_fit_is_refused(words, name):
    with pytest.raises(SettingsError, match=name):
        read_settings(words.split())


def test_positive_ftrl_power_is_refused():
    with pytest.raises(SettingsError, match=r"--ftrl_learning_rate_power .* 0, not 1"):
        read_settings(["--ftrl_learning_rate_power", "1"])


@pytest.mark.parametrize(
    ("old", "name", "value"),
    [("keep_features", "cache_features", "never"), ("feature_views", "cached_views", 3)],
)
def test_names_of_version_0_1_are_understood(tmp_path, old, name, value):
    assert read_settings([f"--{old}", str(value)]).values[name] == (value, "command line")
    texts = ["default:\n", "default:\n"]
    texts[name in Hyperparameters.model_fields] = f"default:\n  {old}: {value}\n"
    assert read_settings(write_settings(tmp_path, *texts)).values[name].value == value


def test_config_file_may_set_the_model_with_the_shipped_hyperparameters(tmp_path):
    (given, _) = write_settings(tmp_path, "default: {model: latest}\n")
    settings = read_settings([given, f"--hyperparameter_file={ROOT}/hyperparameters.yaml"])
    assert settings.hyperparameters.model == "latest"


def test_keywords_of():
    def network(shape, classes, *, depth, dropout_rate=0.5):
        return depth, dropout_rate

    assert keywords_of(network, {"depth": 3, "dropout_rate": 0.1, "other": 1}) == {
        "depth": 3,
        "dropout_rate": 0.1,
    }


def test_unknown_hyperparameter_is_an_error():
    def network(*, dept):
        return dept

    with pytest.raises(KeyError, match="dept"):
        keywords_of(network, {"depth": 3})


def test_settings_files_at_a_url(tmp_path):
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem()
    store.pipe_file("/s/p.yaml", b"default: {hyperparameter_file: h.yaml, train_epochs: 7}")
    store.pipe_file("/s/h.yaml", b"default: {learning_rate: 0.5}")
    settings = read_settings(["--config_file", "memory://s/p.yaml"])
    assert settings.project.train_epochs == 7
    assert settings.hyperparameters.learning_rate == 0.5
    assert settings.values["learning_rate"].provenance.startswith("memory://s/h.yaml:1")
    with pytest.raises(DataError, match=r"memory://s/q\.yaml"):
        read_settings(["--config_file", "memory://s/q.yaml"])
