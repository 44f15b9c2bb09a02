"""LiteRT (TensorFlow Lite) and ONNX models: pixels in, probabilities out.

Each takes pixels in [0, 255] of shape (n, height, width, channels), uint8 for LiteRT's int8 and
float32 otherwise, and returns float32 probabilities (n, classes) in label order. With a detector it
has two outputs, `probabilities` and `unknown_score`, float32 (n,): above 0, the image is unknown.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from library.export.saved_model import append_scores
from library.models.scores import is_multi_label
from library.prediction.unknown_score import UnknownDetector, extend_network

# Read when ONNX Runtime is imported, by tf2onnx perhaps: otherwise it looks servers up, and leaves
# a file in the temporary folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def to_probability_network(
    network: keras.Model, detector: UnknownDetector | None = None
) -> keras.Model:
    """Return a network from float32 pixels to probabilities instead of scores.

    With a detector, it returns a dict of probabilities and unknown scores.
    """
    activation = keras.layers.Activation(
        "sigmoid" if is_multi_label(network) else "softmax", dtype="float32", name="probabilities"
    )
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    # Fixed, so that activations have the same names in every conversion.
    name = "with_probabilities"
    if detector is None:
        return keras.Sequential([pixels, network, activation], name=name)
    outputs = extend_network(network, detector=detector)(pixels)
    return keras.Model(
        pixels,
        {
            "probabilities": activation(outputs["scores"]),
            "unknown_score": outputs["unknown_score"],
        },
        name=name,
    )


def make_litert_converter(
    network: keras.Model, precision: str, calibration: np.ndarray | None = None
) -> tf.lite.TFLiteConverter:
    """Return a converter of a network that returns probabilities to LiteRT.

    Args:
        network: See `to_probability_network`.
        precision: "float32", "float16" (weights) or "int8" (weights and activations).
        calibration: For int8: uint8 pixels (n, height, width, channels) of training images.

    Returns:
        A converter, whose `convert` returns the content of a .tflite file.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        if calibration is None:
            raise ValueError("int8 needs images for calibration")
        converter.representative_dataset = lambda: one_by_one(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    return converter


def one_by_one(pixels: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield images as a converter takes them: float32, each a batch of its own."""
    return ([image[np.newaxis].astype(np.float32)] for image in pixels)


class LiteRTModel:
    """A LiteRT model read from disk."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # an optional package

        self._interpreter = Interpreter(model_content=path.read_bytes())
        (self.input,) = self._interpreter.get_input_details()
        outputs = self._interpreter.get_signature_runner().get_output_details()
        self._outputs = {name: each["index"] for name, each in outputs.items()}

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 probabilities (n, classes), and unknown scores, for uint8 pixels.

        See LoadedSavedModel.
        """
        interpreter, index = self._interpreter, self.input["index"]
        interpreter.resize_tensor_input(index, pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, pixels.astype(self.input["dtype"]))
        interpreter.invoke()
        outputs = {name: interpreter.get_tensor(each) for name, each in self._outputs.items()}
        # Keras numbers a network's only output.
        name = "probabilities" if "probabilities" in outputs else "output_0"
        return append_scores(outputs[name], outputs)


def write_onnx(network: keras.Model, path: Path) -> None:
    """Write the ONNX model of a network that returns probabilities.

    Raises:
        ValueError: The network needs operations that ONNX does not have.
    """
    import onnx  # an optional package

    # It calls erfc an error, which is replaced below; what remains unknown is an error there.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    signature = tf.TensorSpec(network.input_shape, tf.float32, name="pixels")
    with warnings.catch_warnings():
        # tf2onnx 1.17 uses names that NumPy 2 removed; Keras works around it.
        warnings.simplefilter("ignore")
        # Keras compiles grouped convolutions by XLA, in functions that tf2onnx cannot read.
        tf.config.run_functions_eagerly(True)
        try:
            network.export(str(path), format="onnx", verbose=False, input_signature=[signature])
        finally:
            tf.config.run_functions_eagerly(False)
    model = onnx.load(path)
    _replace_erfc(model.graph)
    used = {node.op_type for node in model.graph.node if not node.domain}
    if unknown := sorted(name for name in used if not onnx.defs.has(name)):
        raise ValueError(f"ONNX has no {', '.join(unknown)}")
    _store_constants(model.graph, network, signature)
    onnx.save(model, path)


def _replace_erfc(graph: Any) -> None:
    """Replace each erfc(x), which GELU needs and ONNX does not have, by 1 - erf(x)."""
    import onnx
    from onnx import helper

    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, erf = f"{node.name}/one", f"{node.name}/erf"
        tensor = helper.make_tensor(one, onnx.TensorProto.FLOAT, [], [1.0])
        nodes.append(helper.make_node("Constant", [], [one], name=one, value=tensor))
        nodes.append(helper.make_node("Erf", node.input, [erf], name=erf))
        nodes.append(helper.make_node("Sub", [one, erf], node.output, name=node.name))
    del graph.node[:]
    graph.node.extend(nodes)


def _store_constants(graph: Any, network: keras.Model, signature: tf.TensorSpec) -> None:
    """Store constants, such as the means of a normalization, which tf2onnx makes inputs."""
    import onnx

    function = tf.function(network, autograph=False).get_concrete_function(signature)
    constants = [value for value in function.captured_inputs if value.dtype != tf.resource]
    _, *inputs = list(graph.input)
    for each, value in zip(inputs, constants, strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), each.name))
        graph.input.remove(each)


class OnnxModel:
    """An ONNX model read from disk, run by ONNX Runtime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime  # an optional package

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()
        self._names = [each.name for each in self._session.get_outputs()]

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 probabilities (n, classes), and unknown scores, for uint8 pixels.

        See LoadedSavedModel.
        """
        found = self._session.run(None, {self._input.name: pixels.astype("float32")})
        outputs = dict(zip(self._names, found, strict=True))
        return append_scores(outputs.get("probabilities", found[0]), outputs)
