"""Two files and the command line: which set of which file, and what is written in the wrong one."""

import re

import pytest

from library.errors import SettingsError
from project.settings import read_settings
from tests.project.test_settings import files


def test_a_config_set_brings_its_recipe():
    settings = read_settings(["-cs", "sample"])
    assert settings.project.hyperparameter_set == "sample"
    pattern = r"hyperparameters\.yaml:\d+ \(set sample(, inherited from default)?\)"
    assert re.fullmatch(pattern, settings.provenance["learning_rate"])
    # The command line still wins.
    settings = read_settings(["-cs", "sample", "-hps", "mobilenet"])
    assert settings.hyperparameters.model == "hub"


def test_provenance(tmp_path):
    sets = "default: &default\n  batch_size: 7\nfast:\n  <<: *default\n  xla: true\n"
    settings = read_settings([*files(tmp_path, sets), "-cs", "fast", "--random_seed", "3"])
    path = tmp_path / "p.yaml"
    assert settings.provenance["xla"] == f"{path}:5 (set fast)"
    assert settings.provenance["batch_size"] == f"{path}:2 (set fast, inherited from default)"
    assert settings.provenance["random_seed"] == "command line"
    assert settings.provenance["image_size"] == "default"


REFUSED = {
    (
        "a: {learning_rate: 1}",
        "",
    ): "'learning_rate' at p.yaml:1 (set a) belongs in hyperparameters.yaml",
    ("", "a: {batch_size: 1}"): "'batch_size' at h.yaml:1 (set a) belongs in project.yaml",
    ("a: {}\nb: {model: 3}", ""): "model at p.yaml:2 (set b) must be text, not 3",
    ("a: {modle: x}", ""): "unknown key 'modle' at p.yaml:1 (set a); did you mean 'model'?",
    ("a: {config_set: b}", ""): "'config_set' at p.yaml:1 (set a) is for the command line",
    ("a: {dry_run: true}", ""): "'dry_run' at p.yaml:1 (set a) is for the command line",
    ("", "default:\n  lerning_rate: 1"): (
        "unknown key 'lerning_rate' at h.yaml:2 (set default); did you mean 'learning_rate'?"
    ),
    ("default:\n  learnin_rate: 1", ""): "did you mean 'learning_rate'?",
    (
        "a: {batch-size: 1}",
        "",
    ): "unknown key 'batch-size' at p.yaml:1 (set a); did you mean 'batch_s",
    ("a: {}\n---\n", ""): None,
    ("a: {}\n---\n---\n", ""): "p.yaml:3: another document (---) begins; join the two",
    ("", "a: {}\n---\n"): "h.yaml:2: another document (---) begins; join the two",
    ("default: {hyperparameter_set: x}", ""): "h.yaml: unknown set 'x' (known: default)",
}


@pytest.mark.parametrize("texts", REFUSED, ids=repr)
def test_what_is_refused_says_where_and_why(tmp_path, monkeypatch, texts):
    files(tmp_path, *texts)
    monkeypatch.chdir(tmp_path)
    given = ["-cf", "p.yaml", "-hpf", "h.yaml"]
    if REFUSED[texts] is None:
        read_settings(given)
    else:
        with pytest.raises(SettingsError, match=re.escape(REFUSED[texts])):
            read_settings(given)


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Neither here nor, as in the project's folder, beside run.py.
    with monkeypatch.context() as patch:
        patch.setattr("project.settings.HERE", tmp_path)
        with pytest.raises(SettingsError, match=r"^there is no file project.yaml \(config_file, d"):
            read_settings([])
    with pytest.raises(SettingsError, match=r"^there is no file x \(config_file, command line\)$"):
        read_settings(["-cf", "x"])
    (tmp_path / "project.yaml").write_text("default:\n  hyperparameter_file: y\n")
    words = r"^there is no file y \(hyperparameter_file, project.yaml:2 \(set default\)\)$"
    with pytest.raises(SettingsError, match=words):
        read_settings([])


def test_the_command_line_names_another_recipe_than_the_second_document(tmp_path):
    given = files(tmp_path, "default:\n---\ndefault: {dropout_rate: 0.1}\n", "default:\n")
    assert read_settings(given[:1]).hyperparameters.dropout_rate == 0.1
    assert read_settings(given).hyperparameters.dropout_rate == 0.5
    given = files(tmp_path, "default: {hyperparameter_file: h.yaml}\n---\n")
    words = r"hyperparameter_file at .*p.yaml:1 \(set default\) contradicts the file's second"
    with pytest.raises(SettingsError, match=words):
        read_settings(given[:1])


FORERUNNER = """\
default: &default
  model: latest
  train_batch_size: 32
  train_epochs: 1000
  epochs_between_evals: 100
  hyperparameter_file: h.yaml
  hyperparameter_set: default
  model_dir: out/checkpoints
  best_model_dir: out/best
own: &own
  <<: *default
  model: residual
more:
  <<: *own
"""
RECIPES = """\
default: {learning_rate: 1e-4}
named: &named {model: hub}
inherits: {<<: *named}
"""


@pytest.mark.parametrize(
    ("options", "model", "provenance"),
    [
        ("", "latest", "p.yaml:2 (set default)"),
        ("-cs own", "residual", "p.yaml:12 (set own)"),
        ("-cs more", "residual", "p.yaml:12 (set more, inherited from own)"),
        ("-cs own -hps named", "hub", "h.yaml:2 (set named)"),
        ("-hps inherits", "hub", "h.yaml:2 (set inherits, inherited from named)"),
        ("-cs own -hps named -m application", "application", "command line"),
        ("-m application", "application", "command line"),
    ],
)
def test_either_file_may_name_the_network(tmp_path, monkeypatch, options, model, provenance):
    files(tmp_path, FORERUNNER, RECIPES)
    monkeypatch.chdir(tmp_path)
    read = read_settings(["-cf", "p.yaml", *options.split()])
    assert (read.hyperparameters.model, read.provenance["model"]) == (model, provenance)
    assert re.search(rf"^  model: {model} +# {re.escape(provenance)}$", read.config_yaml(), re.M)
    # What a run writes repeats it.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "project.yaml").write_text(read.project_yaml())
    (tmp_path / "run" / "hyperparameters.yaml").write_text(read.hyperparameters_yaml())
    again = read_settings(["-cf", "run/project.yaml"])
    assert again.hyperparameters == read.hyperparameters
    assert again.project.model_copy(update={"hyperparameter_file": "h.yaml"}) == (
        read.project.model_copy(update={"hyperparameter_set": "default"})
    )


def test_without_a_name_in_either_file_the_network_is_the_built_in_one(tmp_path):
    read = read_settings(files(tmp_path, "default:\n", "default:\n"))
    assert (read.hyperparameters.model, read.provenance["model"]) == ("simple", "default")
