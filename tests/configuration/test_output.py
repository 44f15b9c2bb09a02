"""What is printed can be run from, and repeats the run."""

import re
import shutil

from hypothesis import given, settings
from hypothesis import strategies as st

from library.configuration.scalars import yaml_value
from project.settings import Hyperparameters, read_settings
from tests.project.test_settings import KEYS, WHICH, files


def test_print_config_shows_every_value_and_its_origin():
    text = read_settings(["-cs", "sample", "-lr", "1e-5", "--print_config"]).answer
    for each in KEYS:
        assert re.search(rf"^  (# )?{each.name}: .+  # .+", text, re.MULTILINE), each.name
    assert re.search(r"^  learning_rate: 1.0e-05 +# command line$", text, re.MULTILINE)
    assert re.search(r"^  channels: 1 +# project.yaml:\d+ \(set sample\)$", text, re.MULTILINE)
    assert re.search(
        r"^  model_dir: null +# default \(= run_dir/checkpoints\)$", text, re.MULTILINE
    )


def value_for(each):
    """Return a strategy for the values of a key, hostile ones among them."""
    texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
    texts |= st.sampled_from(["1e-4", "no", "null", "a\nb", " ", "#", "caf\u00e9", "\u2028", "-"])
    if each.choices:
        values = st.sampled_from(each.choices)
    elif each.base is float:
        high = min(each.limits.get("lt", 1e300), each.limits.get("le", 1e300))
        values = st.floats(0 if high else -1e300, high, exclude_max=True, exclude_min=True)
    else:
        values = {
            int: st.integers(1, each.limits.get("le", 2**63 - 1)),
            bool: st.booleans(),
            str: texts,
            tuple: st.lists(texts, max_size=4).map(tuple),
        }[each.base]
    return values | st.none() if each.is_optional else values


ANY = st.fixed_dictionaries(
    {}, optional={each.name: value_for(each) for each in KEYS if each.name not in WHICH}
)


def without_which(read):
    """Return what the settings hold, but for where they were read."""
    values = read.project.model_dump() | read.hyperparameters.model_dump()
    return {name: repr(value) for name, value in values.items() if name not in WHICH}


@given(ANY)
@settings(deadline=None)
def test_what_is_printed_repeats_the_run(tmp_path_factory, values):
    folder = tmp_path_factory.getbasetemp() / "printed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    texts = ["default:\n", "default:\n"]
    for name, value in values.items():
        texts[name in Hyperparameters.model_fields] += f"  {name}: {yaml_value(value)}\n"
    first = read_settings(files(folder, *texts))
    given = {each.name: each.default for each in KEYS if each.name not in WHICH} | values
    for name in values:
        if given[name] is not None and given[name] != "none":
            assert without_which(first)[name] == repr(given[name])
    # One file of two documents, as --print_config gives it.
    (folder / "one.yaml").write_text(first.config_yaml(), encoding="utf-8")
    one = read_settings(["--config_file", str(folder / "one.yaml")])
    assert without_which(one) == without_which(first)
    assert one.provenance["hyperparameter_file"] == "second document"
    # Two files side by side, as a run leaves them; wherever they are carried.
    (folder / "run").mkdir()
    (folder / "run" / "project.yaml").write_text(first.project_yaml(), encoding="utf-8")
    recipe = first.hyperparameters_yaml()
    (folder / "run" / "hyperparameters.yaml").write_text(recipe, encoding="utf-8")
    two = read_settings(["--config_file", str(folder / "run" / "project.yaml")])
    assert without_which(two) == without_which(first)
    assert two.project_yaml().splitlines()[0] == first.project_yaml().splitlines()[0]
