"""Find the layers where an int8 LiteRT model loses most of what its float32 model computes."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np


def describe_largest(losses: Mapping[str, float]) -> str:
    """Return the three layers that lose most, in words for an error message."""
    worst = sorted(losses.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} ({loss:.1%})" for name, loss in worst)
    return f"the layers that lose most of the variance of their activations: {shares}"


def find_losses(
    integer_model: bytes, float_model: bytes, pixels: np.ndarray, layer_names: Collection[str]
) -> dict[str, float]:
    """Return the share of the variance of its activations that each layer loses.

    An activation's loss is the mean over its channels of min(1, squared error / variance), both
    over images and positions. A layer's loss is that of its activation, less the largest of those
    that it takes: what is lost before a layer does not count as the layer's.

    Args:
        integer_model: An int8 model, the content of a .tflite file.
        float_model: The float32 model of the same network.
        pixels: The images to try, uint8 (n, height, width, channels).
        layer_names: The names of the network's layers.

    Returns:
        A loss for each layer, or for an activation if its layer is not among `layer_names`.
    """
    integers, floats = _Activations(integer_model), _Activations(float_model)
    moments: dict[str, np.ndarray] = {}
    for image in pixels:
        expected = dict(floats.of_image(image))
        for name, found in integers.of_image(image):
            if name in expected and expected[name].shape == found.shape:
                wanted = expected[name].reshape(-1, found.shape[-1]).astype(np.float64)
                error = found.reshape(wanted.shape) - wanted
                sums = [np.mean(each, axis=0) for each in (wanted, wanted**2, error**2)]
                moments[name] = moments.get(name, 0) + np.stack(sums) / len(pixels)
    own: dict[str, float] = {}
    lost: dict[str, float] = {}
    for inputs, output in integers.steps:
        before = max((lost.get(name, 0.0) for name in inputs), default=0.0)
        # Activations that the float32 model lacks, as those of a changed type, lose nothing.
        lost[output] = _loss(moments[output]) if output in moments else before
        layer = _layer_of(output, layer_names)
        own[layer] = max(own.get(layer, 0.0), lost[output] - before)
    return own


def _loss(moments: np.ndarray) -> float:
    mean, square, error = moments
    variance = square - mean**2
    varying = variance > 1e-9 * square
    return float(np.minimum(1, error[varying] / variance[varying]).mean()) if varying.any() else 0.0


def _layer_of(activation: str, layer_names: Collection[str]) -> str:
    """Return the layer whose name is in the name of an activation, such as a/layer_1/Relu;a/b."""
    for part in reversed(re.split("[/;]", activation)):
        # TensorFlow appends a number to the names of a network that is called again.
        for name in (re.sub(r"_\d+$", "", part), part):
            if name in layer_names:
                return name
    is_output = activation.startswith("StatefulPartitionedCall")
    return "probabilities" if is_output else activation.split(";")[0]


class _Activations:
    """All activations of a LiteRT model."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import interpreter, schema_py_generated  # an optional package

        self._interpreter = interpreter.Interpreter(
            model_content=content,
            # The default delegate computes several layers at once.
            experimental_op_resolver_type=(
                interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        graph = schema_py_generated.Model.GetRootAs(content, 0).Subgraphs(0)
        self._tensors = {each["index"]: each for each in self._interpreter.get_tensor_details()}
        steps = [graph.Operators(number) for number in range(graph.OperatorsLength())]
        self._outputs = [step.Outputs(0) for step in steps]
        self.steps = [
            (
                [self._name(index) for index in step.InputsAsNumpy() if index >= 0],
                self._name(output),
            )
            for step, output in zip(steps, self._outputs, strict=True)
        ]

    def _name(self, index: int) -> str:
        return self._tensors[index]["name"]

    def of_image(self, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and float values of each activation for uint8 pixels of one image."""
        pixels = image[np.newaxis].astype(self._input["dtype"])
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        for index in self._outputs:
            yield self._name(index), self._values(self._tensors[index])

    def _values(self, tensor: dict[str, Any]) -> np.ndarray:
        values = self._interpreter.get_tensor(tensor["index"])
        scale, zero_point = tensor["quantization"]
        return (values.astype(np.float32) - zero_point) * scale if scale else values
