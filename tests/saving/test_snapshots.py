import json
import shutil

import keras
import numpy as np
import pytest

from library.errors import CheckpointError, UserError
from library.files import seal_folder
from library.saving import snapshots
from library.saving.snapshots import has_snapshot, mend_snapshot, read_snapshot, write_snapshot
from tests.helpers.cut_short import contents, watched

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype(np.float32)


def make_network(seed=0, edge=4):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((edge, edge, 1))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)))


@pytest.fixture
def best(tmp_path):
    folder = tmp_path / "run" / "best"
    write_snapshot(folder, make_network(), ("cat", "日本"), {"value": 0.5}, {"a": "b"})
    return folder


def test_what_is_read_is_what_was_written(best):
    snapshot = read_snapshot(best)
    assert np.array_equal(snapshot.network(PIXELS), make_network()(PIXELS))
    assert snapshot.classes == ("cat", "日本")
    assert snapshot.metrics == {"value": 0.5}
    assert (best / "a").read_text() == "b"
    assert json.loads((best / "classes.json").read_text()) == ["cat", "日本"]


def test_saving_and_loading_make_no_layers_but_those_of_the_network(best, monkeypatch):
    network, made, make = make_network(), [], keras.layers.Layer.__init__

    def noted(layer, *arguments, **options):
        made.append(type(layer).__name__)
        make(layer, *arguments, **options)

    monkeypatch.setattr(keras.layers.Layer, "__init__", noted)
    write_snapshot(best, network, ("cat", "日本"), {"value": 0.5}, {})
    assert not made
    read_snapshot(best)
    assert sorted(set(made)) == ["Dense", "Flatten", "Functional", "InputLayer"]


def test_none_is_an_error_that_says_how_to_get_one(tmp_path):
    assert not has_snapshot(tmp_path / "best")
    with pytest.raises(CheckpointError, match=r"no snapshot in .*: python run.py trains"):
        read_snapshot(tmp_path / "best")


def test_a_failed_save_keeps_the_old_one(best, monkeypatch):
    class FullModel:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    message = rf"the snapshot in {best} could not be saved \(No space left on device\); what was sa"
    with pytest.raises(UserError, match=message):
        write_snapshot(best, FullModel(), ("dog",), {"value": 0.1}, {})
    assert read_snapshot(best).metrics == {"value": 0.5}
    assert [each.name for each in best.parent.iterdir()] == ["best"]


@pytest.mark.parametrize("name", ["model.keras", "classes.json", "metrics.json"])
def test_a_damaged_one_is_refused_by_name(best, name):
    content = bytearray((best / name).read_bytes())
    content[len(content) // 2] ^= 1
    (best / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"is damaged \(.*{name}"):
        read_snapshot(best)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.json", "[cat]", "classes.json can't be read as JSON: Expecting value"),
        ("classes.json", "{}", "classes.json holds no list, as a snapshot's would"),
        ("classes.json", '["a"]', "holds the names of 1 class, but its network gives scores for 2"),
        ("metrics.json", "[]", "metrics.json holds no dict"),
        ("data.json", "", "data.json can't be read as JSON"),
    ],
)
def test_wrong_contents_are_one_line_though_they_are_sealed(best, name, text, said):
    (best / name).write_text(text)
    seal_folder(best)
    with pytest.raises(CheckpointError, match=said):
        read_snapshot(best)


def test_a_file_of_a_snapshot_is_not_the_snapshot(best):
    with pytest.raises(CheckpointError, match=r"keras is a file: a snapshot is the folder"):
        read_snapshot(best / "model.keras")


def test_a_replacement_cut_short_at_any_point_leaves_the_old_or_the_new(best, tmp_path):
    with watched(best.parent, tmp_path / "states") as states:
        write_snapshot(best, make_network(1), ("cat", "日本"), {"value": 0.25}, {"a": "b"})
    values = []
    for state in states:
        before = contents(state)
        # A reader may come while the training goes on: it takes what is there, and changes nothing.
        assert has_snapshot(state / "best")
        found = read_snapshot(state / "best")
        values.append(found.metrics["value"])
        kernel = make_network(int(values[-1] == 0.25)).weights[0]
        assert np.array_equal(found.network.weights[0], kernel)
        assert found.folder == state / "best"
        assert contents(state) == before
        # The next training mends it.
        mend_snapshot(state / "best")
        assert [each.name for each in state.iterdir()] == ["best"]
        assert json.loads((state / "best" / "metrics.json").read_text()) == found.metrics
    assert values == sorted(values, reverse=True)
    assert set(values) == {0.5, 0.25}
    assert len(states) > 8


@pytest.mark.parametrize("point", ["find_damage", "_load"])
@pytest.mark.parametrize("is_after", [False, True])
def test_one_replaced_while_it_is_read_is_read_again(best, monkeypatch, point, is_after):
    function = getattr(snapshots, point)

    def replace_first(path):
        monkeypatch.setattr(snapshots, point, function)
        result = function(path) if is_after else None
        write_snapshot(best, make_network(1), ("cat", "日本"), {"value": 0.25}, {})
        return result if is_after else function(path)

    monkeypatch.setattr(snapshots, point, replace_first)
    found = read_snapshot(best)
    assert found.metrics == {"value": 0.25}
    assert np.array_equal(found.network.weights[0], make_network(1).weights[0])


def test_one_read_between_the_two_renames_that_replace_it_is_read_again(best, monkeypatch):
    best.rename(previous := best.with_name("best.previous"))
    load = snapshots._load

    def end_replacement(path):
        monkeypatch.setattr(snapshots, "_load", load)
        write_snapshot(best.with_name("next"), make_network(1), ("a", "b"), {"value": 0.25}, {})
        best.with_name("next").rename(best)
        shutil.rmtree(previous)
        return load(path)

    monkeypatch.setattr(snapshots, "_load", end_replacement)
    assert read_snapshot(best).metrics == {"value": 0.25}


def test_mending_leaves_alone_what_others_write_beside_it(best):
    others = [best.with_name(name) for name in (".best.2.7.ab.partial", ".explained.7.ab.partial")]
    for each in (*others, best.with_name(".best.7.ab.partial")):
        each.mkdir()
    mend_snapshot(best)
    assert sorted(best.parent.iterdir()) == sorted([best, *others])


def test_code_inside_a_model_file_is_refused(best):
    pixels = keras.Input((4, 4, 1))
    network = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(pixels))
    write_snapshot(best, network, ("a",), {}, {})
    with pytest.raises(CheckpointError, match=r"model.keras cannot be loaded: .*[Ll]ambda"):
        read_snapshot(best)
    assert snapshots.has_snapshot(best)
