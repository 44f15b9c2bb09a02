"""ONNX: pixels in 0 to 255, float32 (n, height, width, channels), in; probabilities out."""

import warnings

import tensorflow as tf


def write_onnx(network, path):
    """Write the ONNX model of a network that gives probabilities."""
    signature = tf.TensorSpec(network.input_shape, tf.float32, name="pixels")
    with warnings.catch_warnings():
        # tf2onnx 1.17 looks for names that NumPy 2 took away; Keras works around it.
        warnings.simplefilter("ignore")
        network.export(str(path), format="onnx", verbose=False, input_signature=[signature])


class OnnxModel:
    """An ONNX model as read from disk, run by ONNX Runtime on the CPU."""

    def __init__(self, path):
        import onnxruntime  # late: an extra

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()

    def from_pixels(self, pixels):
        """Return float32 (n, classes) for uint8 pixels."""
        (probabilities,) = self._session.run(None, {self._input.name: pixels.astype("float32")})
        return probabilities
