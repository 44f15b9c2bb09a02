import numpy as np
import pytest

from library.evaluation.probabilities import MULTI_LABEL
from library.prediction.combining import combine
from library.prediction.predictor import Predictor
from library.shipping.saved_model import ServedModel, write_saved_model
from tests.test_predictor import PIXELS, make

pytestmark = pytest.mark.slow


def test_an_ensemble_of_views_with_a_temperature_is_one_saved_model(tmp_path):
    snapshot = combine([make(0, head=MULTI_LABEL), make(1, head=MULTI_LABEL)], [2.0, 0.5], views=3)
    write_saved_model(tmp_path, snapshot)
    found = ServedModel(tmp_path, snapshot.classes).from_pixels(PIXELS)
    assert np.allclose(found, Predictor([snapshot]).probabilities(PIXELS), atol=1e-6)
