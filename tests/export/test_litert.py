import numpy as np
import pytest

from library.export.exporting import probabilities_of
from library.export.litert import LiteRTModel, convert_litert
from library.prediction.predictor import Predictor
from tests.prediction.test_predictor import PIXELS, make


@pytest.mark.slow
def test_eight_bits_take_whole_pixels_and_a_quarter_of_the_room(tmp_path, capfd):
    snapshot = make()
    sizes = {}
    for precision in ("float32", "int8"):
        content = convert_litert(probabilities_of(snapshot), precision, PIXELS)
        (tmp_path / precision).write_bytes(content)
        sizes[precision] = len(content)
    capfd.readouterr()
    model = LiteRTModel(tmp_path / "int8")
    assert model._input["dtype"] == np.uint8
    found, expected = model.from_pixels(PIXELS), Predictor([snapshot]).probabilities(PIXELS)
    assert np.abs(found - expected).max() < 0.05
    assert sizes["int8"] < sizes["float32"]
