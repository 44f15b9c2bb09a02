"""Paths with ~ and variables: what they expand to, what is refused, and how they are written."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import convert_dataset
from library.configuration.paths import escape_path, expand_path
from library.configuration.schema import keys_of
from library.errors import SettingsError
from project.hyperparameters import Hyperparameters
from project.settings import read_settings
from tests.helpers.settings import KEYS, write_settings

CONVERSION_KEYS = keys_of(convert_dataset.Settings)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.setenv("BUCKET", "gs://b")
    monkeypatch.setenv("TILDE", "~/x")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("~", "/home/me"),
        ("~/data", "/home/me/data"),
        ("~root/x", os.path.expanduser("~root/x")),  # noqa: PTH111
        ("./~", "./~"),
        ("a/~/b", "a/~/b"),
        ("a~", "a~"),
        ("$SCRATCH/run", "/scratch/run"),
        ("${SCRATCH}run", "/scratchrun"),
        ("out/$SCRATCH${SCRATCH}", "out//scratch/scratch"),
        ("~/$SCRATCH", "/home/me//scratch"),
        ("$BUCKET/data", "gs://b/data"),
        ("$TILDE", "~/x"),
        ("a$$SCRATCH", "a$SCRATCH"),
    ],
)
def test_expand_path(written, path):
    assert expand_path(written) == path


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("$NOWHERE/x", r"NOWHERE.*\$\$"),
        ("x${NOWHERE}", "NOWHERE"),
        *((each, r"\$\$") for each in ("${SCRATCH", "${}", "${SCRATCH:-x}", "$5 off", "$")),
        ("~no_such_user/x", r"'~no_such_user'.*'\./~no_such_user'"),
    ],
)
def test_expand_path_refuses(written, named):
    with pytest.raises(ValueError, match=named):
        expand_path(written)


PARTS = st.sampled_from([*"~$./{}_a", "SCRATCH", "NOWHERE", "$$"])


@given(st.lists(PARTS, max_size=8).map("".join))
def test_escaped_path_expands_to_itself(path):
    expanded = expand_path(escape_path(path))
    assert expanded == (f"./{path}" if path.startswith("~") else path)


@pytest.mark.parametrize("each", [each for each in KEYS if each.is_path], ids=lambda key: key.name)
def test_every_path_is_expanded_on_the_command_line_and_in_files(tmp_path, each):
    is_list = each.base is tuple
    for written, path in (("~/x", "/home/me/x"), ("$SCRATCH/x", "/scratch/x")):
        expected = (path, path) if is_list else path
        texts = ["default:\n", "default:\n"]
        text = f"[{written}, {written}]" if is_list else written
        texts[each.name in Hyperparameters.model_fields] += f"  {each.name}: {text}\n"
        files = write_settings(tmp_path, *texts)
        if each.name != "hyperparameter_file":
            assert read_settings(files).values[each.name].value == expected
            option = f"{written},{written}" if is_list else written
            settings = read_settings([*write_settings(tmp_path), f"--{each.name}", option])
            assert settings.values[each.name] == (expected, "command line")


def test_settings_files_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "h.yaml").write_text("default: {learning_rate: 7.}\n")
    (tmp_path / "p.yaml").write_text("default: {hyperparameter_file: ~/h.yaml}\n")
    monkeypatch.chdir("/")
    settings = read_settings(["--config_file", "~/p.yaml"])
    assert settings.hyperparameters.learning_rate == 7
    settings = read_settings(["-cf", "~/p.yaml", "-hpf", "$HOME/h.yaml"])
    assert settings.hyperparameters.learning_rate == 7


def test_what_is_written_repeats_the_run(tmp_path, monkeypatch):
    options = ["--run_dir", "a$$SCRATCH", "--data_dir", "$TILDE", "--ensemble", "~/a,b"]
    first = read_settings([*write_settings(tmp_path), *options])
    (tmp_path / "again.yaml").write_text(first.config_yaml())
    monkeypatch.setenv("HOME", "/elsewhere")
    again = read_settings(["--config_file", "again.yaml"]).project
    assert (again.run_dir, again.data_dir) == ("a$SCRATCH", "./~/x")
    assert again.best_model_dir == "a$SCRATCH/best"
    assert again.ensemble == ("/home/me/a", "b")


def test_unset_variable_is_refused_by_line_in_the_chosen_set_only(tmp_path):
    sets = "default: {}\ncluster:\n  run_dir: $NOWHERE/run\n"
    files = write_settings(tmp_path, sets)
    assert read_settings(files).project.run_dir == "out/current"
    with pytest.raises(SettingsError, match=r"^run_dir at .*p.yaml:3 \(set cluster\).*NOWHERE"):
        read_settings([*files, "-cs", "cluster"])
    with pytest.raises(SettingsError, match=r"^--run_dir .*NOWHERE"):
        read_settings([*files, "--run_dir", "$NOWHERE"])


def test_url_in_a_variable_is_refused_for_a_local_path(tmp_path):
    files = write_settings(tmp_path, "default: {cache_dir: $BUCKET/run}\n")
    with pytest.raises(SettingsError, match=r"^cache_dir at .*p.yaml:1.*'gs://b/run'"):
        read_settings(files)


def test_arguments_are_expanded_unless_there_is_such_a_file(tmp_path):
    from run import COMMANDS

    (tmp_path / "$NOWHERE.jpg").touch()
    settings = read_settings(["predict", "~/a.jpg", "$NOWHERE.jpg", "$SCRATCH/*.jpg"], COMMANDS)
    assert settings.paths == ("/home/me/a.jpg", "$NOWHERE.jpg", "/scratch/*.jpg")
    with pytest.raises(SettingsError, match=r"'\$NOWHERE/a.jpg'.*NOWHERE"):
        read_settings(["predict", "$NOWHERE/a.jpg"], COMMANDS)


def test_conversion_expands_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    from tests.conftest import write_colors

    write_colors(tmp_path / "train", 2)
    convert_dataset.main(["--dataset_dir", "~/train", "--tfrecord_dir", "${HOME}/shards"])
    assert (tmp_path / "shards" / "train.manifest.json").exists()
    with pytest.raises(SettingsError, match=r"^--tfrecord_dir .*NOWHERE"):
        convert_dataset.main(["--dataset_dir", "~/train", "--tfrecord_dir", "$NOWHERE"])


# Words in the names of settings that name no path.
NO_PATHS = {"tfrecord_filename", "checkpoint_exclude_scopes"}
PATH_WORDS = (
    "dir",
    "file",
    "path",
    "checkpoint",
    "handle",
    "ensemble",
    "report",
    "from",
    "metadata",
)


@pytest.mark.parametrize("keys", [KEYS, CONVERSION_KEYS], ids=["run.py", "convert_dataset.py"])
def test_every_key_that_names_a_path_says_whether_it_takes_a_url(keys):
    for each in keys:
        is_named = any(word in each.name.split("_") for word in PATH_WORDS)
        is_text = each.base in (str, tuple) and not each.choices and each.name not in NO_PATHS
        assert not (is_named and is_text) or each.is_path, each.name
        if not each.is_path:
            continue
        value = ["gs://b/x"] if each.base is tuple else "gs://b/x"
        if each.accepts_url:
            assert each.check(value)
        else:
            with pytest.raises(SettingsError, match=r"local path.*'gs://b/x'"):
                each.check(value)


def test_keys_that_accept_a_url():
    accepting = {each.name for each in (*KEYS, *CONVERSION_KEYS) if each.accepts_url}
    assert {"data_dir", "hub_handle", "dataset_dir", "tfrecord_dir"} <= accepting
