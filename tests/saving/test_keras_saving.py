import keras
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib

from library.saving.snapshots import remember_attributes


def test_keras_finds_what_is_remembered_and_networks_stay_whole(tmp_path):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    names = [f"saving_attr_skiplist_{kind}" for kind in ("Layer", "Functional", "Sequential")]
    expected = [saving_lib.get_attr_skipset(each.rpartition("_")[2]) for each in names]
    for name in names:
        global_state.set_global_attribute(name, None)
    remember_attributes()
    assert [global_state.get_global_attribute(each) for each in names] == expected
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(network.get_weights(), again.get_weights(), strict=True):
        assert (mine == theirs).all()
