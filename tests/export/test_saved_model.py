import numpy as np
import pytest
import tensorflow as tf

from library.export.saved_model import ServedModel, write_saved_model
from library.models.scores import MULTI_LABEL
from library.prediction.ensemble import combine
from library.prediction.predictor import Predictor
from library.prediction.preprocess import Pictures
from tests.export.test_bytes_to_pixels import encode
from tests.prediction.test_predictor import PIXELS, make

pytestmark = pytest.mark.slow


def test_an_ensemble_of_views_with_a_temperature_is_one_saved_model(tmp_path):
    snapshot = combine([make(0, head=MULTI_LABEL), make(1, head=MULTI_LABEL)], [2.0, 0.5], views=3)
    write_saved_model(tmp_path, snapshot)
    found = ServedModel(tmp_path, snapshot.classes).from_pixels(PIXELS)
    assert np.allclose(found, Predictor([snapshot]).probabilities(PIXELS), atol=1e-6)


def test_on_request_it_gives_embeddings_too(tmp_path):
    snapshot = combine([make(0), make(1, hidden=4)], views=2)
    write_saved_model(tmp_path, snapshot, embedding=True)
    predictor = Predictor([snapshot], embedding=True)
    probabilities, embeddings = predictor.predict(PIXELS)
    assert np.allclose(
        ServedModel(tmp_path, snapshot.classes).from_pixels(PIXELS), probabilities, atol=1e-6
    )
    signatures = tf.saved_model.load(tmp_path).signatures
    given = signatures["pixels"](pixels=tf.constant(PIXELS))["embedding"]
    assert np.allclose(given, embeddings, atol=1e-6)
    encoded = [encode(each, "PNG") for each in PIXELS]
    given = signatures["serving_default"](image_bytes=tf.constant(encoded))["embedding"]
    prepared = np.stack([Pictures.of(snapshot).pixels(each) for each in encoded])
    assert np.allclose(given, predictor.predict(prepared)[1], atol=1e-6)
