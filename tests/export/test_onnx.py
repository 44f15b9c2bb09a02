import pytest

from library.export.exporting import probabilities_of
from library.export.onnx import OnnxModel, write_onnx
from tests.prediction.test_predictor import PIXELS, make


@pytest.mark.slow
def test_any_number_of_images_at_once(tmp_path):
    write_onnx(probabilities_of(make()), tmp_path / "model.onnx")
    model = OnnxModel(tmp_path / "model.onnx")
    assert model.from_pixels(PIXELS).shape == (5, 3)
    assert model.from_pixels(PIXELS[:1]).shape == (1, 3)
