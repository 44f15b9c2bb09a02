import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from library.training.tensorboard import Summaries


def events(folder):
    """{tag: [(step, summary value), …]} of all event files in a folder."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def silent(text):
    raise AssertionError(f"unexpected message: {text}")


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, name="look")(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def test_all_of_it_can_be_read_back(tmp_path, network):
    summaries = Summaries(tmp_path, silent)
    summaries.add_hyperparameters({"learning_rate": 0.1, "model": "simple", "none": None})
    summaries.add_scalars("train", 3, {"loss": 1.5})
    summaries.add_scalars("validation", 3, {"loss": 2.5})
    images = np.arange(12 * 8 * 8 * 3, dtype=np.uint8).reshape(12, 8, 8, 3)
    summaries.add_image(3, "one", images[1])
    summaries.add_histograms(3, network.trainable_variables)
    summaries.flush()
    summaries.close()
    training, validation = events(tmp_path / "train"), events(tmp_path / "validation")
    ((step, value),) = training["loss"]
    assert (step, float(tf.make_ndarray(value.tensor))) == (3, 1.5)
    assert float(tf.make_ndarray(validation["loss"][0][1].tensor)) == 2.5
    (shown,) = tf.make_ndarray(training["images/one"][0][1].tensor)[2:]
    assert np.array_equal(tf.io.decode_png(shown), images[1])
    assert "weights/look/kernel" in training
    settings = events(tmp_path)
    assert "_hparams_/session_start_info" in settings
    content = settings["_hparams_/experiment"][0][1].metadata.plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    assert [each.name for each in experiment.hparam_infos] == ["learning_rate", "model"]
    found = {
        (each.name.group, each.name.tag): each.display_name for each in experiment.metric_infos
    }
    assert found["validation", "epoch/accuracy"] == "validation accuracy"


def test_a_folder_that_cant_be_written_to_is_one_warning(tmp_path, network):
    (tmp_path / "logs").write_text("in the way")
    said = []
    summaries = Summaries(tmp_path / "logs", said.append)
    summaries.add_scalars("train", 1, {"loss": 1.0})
    summaries.add_image(1, "one", np.zeros((2, 2, 1), np.uint8))
    summaries.flush()
    summaries.close()
    assert len(said) == 1
    assert said[0].startswith("warning: no more TensorBoard summaries (")
    assert said[0].endswith("training goes on")
