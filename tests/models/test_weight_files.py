import h5py
import pytest

from library.errors import CheckpointError
from library.models.weights import read_weights
from tests.models.test_weights import SAVERS, make_network


@pytest.mark.parametrize("kind", SAVERS)
def test_names_are_those_of_layers(kind, tmp_path):
    names = read_weights(
        SAVERS[kind](make_network(), tmp_path / kind if kind == "snapshot" else tmp_path)
    )
    wanted = {"h5": "scores/0", "TF1 checkpoint": "tower/scores/kernel"}.get(kind, "scores/kernel")
    assert names[wanted].shape == (4, 3)
    assert len(names) == 12


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="x does not exist: it must be a snapshot's folder"):
        read_weights(tmp_path / "x")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="is none of these: it must be a snapshot's folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("run", "run/best"),
        ("run/checkpoints", "run/best"),
        ("ck.index", "ck"),
        ("ck.data-00000-of-00001", "ck"),
    ],
)
def test_a_path_beside_the_right_one_is_one_line_with_the_right_one(given, meant, tmp_path):
    for name in ("run/best/model.keras", "run/checkpoints/1", "ck.index", "ck.data-00000-of-00001"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(
        CheckpointError, match=rf"none of these: .+; did you mean {tmp_path}/{meant}\?$"
    ):
        read_weights(tmp_path / given)


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5", "x"])
def test_a_damaged_file_is_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "x.index").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"checkpoint_path: .* cannot be read: ") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_h5_file_of_something_else(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["numbers"] = [1, 2]
    with pytest.raises(CheckpointError, match=r"it is no \.weights\.h5 file of Keras 3"):
        read_weights(tmp_path / "x.h5")


def test_a_damaged_snapshot_is_refused(tmp_path):
    SAVERS["snapshot"](make_network(), tmp_path / "best")
    (tmp_path / "best" / "classes.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(tmp_path / "best")


def test_a_snapshot_is_read_where_its_replacement_was_cut_short(tmp_path):
    SAVERS["snapshot"](make_network(), tmp_path / "best").rename(tmp_path / "best.previous")
    assert read_weights(tmp_path / "best")
