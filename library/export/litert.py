"""LiteRT (TensorFlow Lite): float32, float16, or 8-bit integers calibrated on training images.

Each takes one batch of pixels in 0 to 255 (uint8 in the 8-bit one, else float32) of shape
(n, height, width, channels), and gives probabilities, float32 (n, classes), in the classes' order.
"""

import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

PRECISIONS = ("float32", "float16", "int8")


def convert_litert(network, precision, calibration=None):
    """Return the bytes of a LiteRT model. `network` gives probabilities.

    `calibration` is uint8 pixels (n, height, width, channels), for int8.
    """
    with warnings.catch_warnings():
        # Of its own moving to another package; the pinned TensorFlow still has it.
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: (
                [image[np.newaxis].astype(np.float32)] for image in calibration
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        return converter.convert()


class LiteRTModel:
    """A LiteRT model as read from disk."""

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter  # late: an extra

        self._interpreter = Interpreter(model_content=Path(path).read_bytes())
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def from_pixels(self, pixels):
        """Return float32 (n, classes) for uint8 pixels."""
        model, place = self._interpreter, self._input["index"]
        model.resize_tensor_input(place, pixels.shape)
        model.allocate_tensors()
        model.set_tensor(place, pixels.astype(self._input["dtype"]))
        model.invoke()
        return model.get_tensor(self._output["index"])
