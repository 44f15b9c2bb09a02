import json

import keras
import numpy as np
import pytest

from library.errors import CheckpointError
from library.training import snapshots
from library.training.snapshots import has_snapshot, read_snapshot, write_snapshot

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype(np.float32)


def make_network(seed=0, edge=4):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((edge, edge, 1))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)))


@pytest.fixture
def best(tmp_path):
    write_snapshot(tmp_path / "best", make_network(), ("cat", "日本"), {"value": 0.5}, {"a": "b"})
    return tmp_path / "best"


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

    with pytest.raises(OSError, match="No space left"):
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


def test_a_replacement_cut_short_is_mended(best):
    best.rename(best.with_name("best.previous"))
    assert has_snapshot(best)
    assert read_snapshot(best).metrics == {"value": 0.5}


def test_code_inside_a_model_file_is_refused(best):
    pixels = keras.Input((4, 4, 1))
    network = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(pixels))
    write_snapshot(best, network, ("a",), {}, {})
    with pytest.raises(CheckpointError, match=r"model.keras cannot be loaded: .*[Ll]ambda"):
        read_snapshot(best)
    assert snapshots.has_snapshot(best)
