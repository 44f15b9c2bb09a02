"""A SavedModel in one of TensorFlow Hub's formats: a function of images, and its variables."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from library.errors import UserError, first_line
from library.models.hub_download import deletion_hint
from library.models.unsafe_ops import find_unsafe_ops

# The file that marks modules in the format of TensorFlow 1.
TF1_MARK = "tfhub_module.pb"
# Their signatures that return features; the first one present is used.
TF1_SIGNATURES = ("image_feature_vector", "default", "serving_default")


@dataclass(frozen=True)
class HubModule:
    """A loaded module.

    Attributes:
        call: Function of (images, training) that returns a tensor.
        variables: The module's variables.
        are_trainable: For each variable, whether the module's authors meant it to be trained.
        regularization_losses: Functions without arguments; each returns a scalar to add to the
            loss during training.
        input_specs: The images that the module accepts.
        files: All files of the SavedModel but the values of its variables.
        root: The object that TensorFlow loaded, which must stay alive: it owns the functions.
    """

    call: Callable[[Any, bool], Any]
    variables: tuple[tf.Variable, ...]
    are_trainable: tuple[bool, ...]
    regularization_losses: tuple[Any, ...]
    input_specs: tuple[tf.TensorSpec, ...]
    files: dict[str, bytes]
    root: Any

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The (height, width) that the module accepts, or None if it accepts any."""
        shapes = [each.shape for each in self.input_specs if each.shape.rank == 4]
        size = tuple(shapes[0][1:3]) if shapes else ()
        return size if size and all(size) else None


def load_module(folder: str | Path, *, restore: bool = True) -> HubModule:
    """Load the module whose SavedModel is in a local folder.

    Like `tensorflow_hub.load`, which can't leave the variables empty.

    Args:
        folder: The folder, as `resolve_module` returns it.
        restore: Whether to read the values of the variables; otherwise the caller assigns them.

    Raises:
        UserError: The module is damaged, unsafe, or in another format.
    """
    folder = Path(folder)
    files = {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and each.relative_to(folder).parts[0] != "variables"
    }
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not restore)
    tags: list[str] | None = [] if TF1_MARK in files else None
    try:
        graphs = parse_saved_model(folder).meta_graphs
        if len(graphs) > 1:
            for each in graphs:
                # TensorFlow loads several as in TensorFlow 1, by their graphs.
                each.ClearField("object_graph_def")
        if unsafe := sorted({op for graph in graphs for op in find_unsafe_ops(graph)}):
            raise UserError(
                f"{folder} is refused: its graph has ops that may reach outside it "
                f"({', '.join(unsafe)}); if you trust it, list them in "
                "library/models/unsafe_ops.py"
            )
        root = tf.saved_model.load(str(folder), tags=tags, options=options)
    except UserError:
        raise
    except Exception as error:
        # TensorFlow raises errors of many kinds: OpError, ValueError, KeyError, ….
        raise UserError(
            f"cannot load {folder}: {first_line(error)}{deletion_hint(folder)}"
        ) from error
    if callable(root) and hasattr(root, "trainable_variables"):
        return _from_tf2(root, files)
    if hasattr(root, "prune") and any(each in root.signatures for each in TF1_SIGNATURES):
        return _from_tf1(root, files)
    raise UserError(
        f"{folder} is not a TensorFlow Hub module: it is neither callable with "
        f"trainable_variables nor has it a signature {' or '.join(TF1_SIGNATURES[:2])}"
    )


def unique_names(names: Iterable[str]) -> list[str]:
    """Return the names with a number added to repeated ones.

    `kernel`, `bias`, `kernel` become `kernel`, `bias`, `kernel_1`.
    """
    names = list(names)
    taken, found = set(names), dict[str, None]()
    for name in names:
        if name in found:
            numbered = (f"{name}_{number}" for number in count(1))
            name = next(each for each in numbered if each not in taken and each not in found)
        found[name] = None
    return list(found)


def _from_tf2(root: Any, files: dict[str, bytes]) -> HubModule:
    function = root.__call__
    has_training = "training" in function.function_type.parameters
    # First in the module's order, then those that `variables` does not list: a snapshot needs all.
    found = [*getattr(root, "variables", ()), *tf.train.TrackableView(root).descendants()]
    # The counter of saves of a tf.train.Checkpoint is not part of the module.
    counter = getattr(root, "save_counter", None)
    variables = {id(each): each for each in found if isinstance(each, tf.Variable)}
    variables.pop(id(counter), None)
    trainable = {id(each) for each in root.trainable_variables}
    signatures = [each.structured_input_signature for each in function.concrete_functions]

    def call(images: Any, training: bool) -> Any:
        return _features(root(images, training=training) if has_training else root(images))

    return HubModule(
        call=call,
        variables=tuple(variables.values()),
        are_trainable=tuple(key in trainable for key in variables),
        regularization_losses=tuple(getattr(root, "regularization_losses", ())),
        input_specs=_image_specs(signatures),
        files=files,
        root=root,
    )


def _from_tf1(root: Any, files: dict[str, bytes]) -> HubModule:
    function = next(root.signatures[each] for each in TF1_SIGNATURES if each in root.signatures)
    _, inputs = function.structured_input_signature
    (images_name,) = inputs if len(inputs) == 1 else ("images",)

    def call(images: Any, training: bool) -> Any:
        # Such a module has another graph for training, which TensorFlow 2 cannot run.
        return _features(function(**{images_name: images}))

    return HubModule(
        call=call,
        variables=tuple(root.variables),
        are_trainable=(False,) * len(root.variables),
        regularization_losses=(),
        input_specs=(inputs[images_name],),
        files=files,
        root=root,
    )


def _features(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        if "default" not in outputs and len(outputs) > 1:
            names = ", ".join(sorted(map(str, outputs)))
            raise UserError(f"the module has several outputs ({names}), none called default")
        outputs = outputs.get("default", next(iter(outputs.values()), None))
    if not tf.is_tensor(outputs):
        raise UserError(f"the module returns {type(outputs).__name__}, not a tensor of features")
    return outputs


def _image_specs(signatures: Iterable[Any]) -> tuple[tf.TensorSpec, ...]:
    """Return the distinct first TensorSpecs of the signatures."""
    found = {}
    for signature in signatures:
        specs = [each for each in tf.nest.flatten(signature) if isinstance(each, tf.TensorSpec)]
        found.update({(str(each.shape), each.dtype): each for each in specs[:1]})
    return tuple(found.values())
