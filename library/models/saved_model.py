"""A SavedModel in one of TensorFlow Hub's forms, as a function of images and its variables."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from library.errors import UserError, first_line
from library.models.hub_download import GRAPH, deletion_hint
from library.models.unsafe_ops import find_unsafe_ops

# TensorFlow Hub's mark on modules of its first format.
TF1_MARK = "tfhub_module.pb"
# Signatures of such modules that give features, the first one that there is.
TF1_SIGNATURES = ("image_feature_vector", "default", "serving_default")


@dataclass(frozen=True)
class Module:
    """A loaded module."""

    # A function of (images, training) that gives a tensor.
    call: object
    variables: tuple
    # Of the same length: whether the module's authors meant the variable to be trained.
    are_trainable: tuple
    # Functions without arguments, each a scalar to add to the loss while training.
    penalties: tuple
    # What it takes as images, each a TensorSpec.
    takes: tuple
    # (height, width), or None where the module takes any.
    image_size: tuple | None
    can_be_trained: bool
    # All of the SavedModel but the values of its variables: name → bytes.
    files: dict
    # What TensorFlow loaded. It must stay alive, as the functions belong to it.
    root: object


def load_module(folder, *, restore=True):
    """Return the Module whose SavedModel is in `folder`. Raises UserError.

    Without `restore`, its variables hold nothing yet: who calls assigns their values.
    """
    folder = Path(folder)
    files = {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and each.relative_to(folder).parts[0] != "variables"
    }
    _check_graph(files[GRAPH], folder)
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not restore)
    tags = [] if TF1_MARK in files else None
    try:
        root = tf.saved_model.load(str(folder), tags=tags, options=options)
    except Exception as error:
        # TensorFlow raises whatever it finds: OpError, ValueError, KeyError, ….
        raise UserError(
            f"{folder} is damaged or no SavedModel: {first_line(error)}{deletion_hint(folder)}"
        ) from error
    if callable(root) and hasattr(root, "trainable_variables"):
        return _from_tf2(root, files)
    if hasattr(root, "prune") and any(each in root.signatures for each in TF1_SIGNATURES):
        return _from_tf1(root, files)
    raise UserError(
        f"{folder} is not in a form that TensorFlow Hub describes: it is neither callable with "
        f"trainable_variables nor has it a signature {' or '.join(TF1_SIGNATURES[:2])}"
    )


def _from_tf2(root, files):
    function = root.__call__
    has_training = "training" in function.function_type.parameters
    # In the module's order, and then what `variables` does not list, or a snapshot would lack it.
    found = [*getattr(root, "variables", ()), *tf.train.TrackableView(root).descendants()]
    # A tf.train.Checkpoint counts how often it was saved; the module does not need to know.
    counter = getattr(root, "save_counter", None)
    variables = tuple({id(each): each for each in found if isinstance(each, tf.Variable)}.values())
    variables = tuple(each for each in variables if each is not counter)
    learned = {id(each) for each in root.trainable_variables}
    takes = _images_in([each.structured_input_signature for each in function.concrete_functions])

    def call(images, training):
        return _features(root(images, training=training) if has_training else root(images))

    return Module(
        call=call,
        variables=variables,
        are_trainable=tuple(id(each) in learned for each in variables),
        penalties=tuple(getattr(root, "regularization_losses", ())),
        takes=takes,
        image_size=_image_size(takes),
        can_be_trained=bool(learned),
        files=files,
        root=root,
    )


def _from_tf1(root, files):
    name = next(each for each in TF1_SIGNATURES if each in root.signatures)
    function = root.signatures[name]
    _, inputs = function.structured_input_signature
    (images_name,) = inputs if len(inputs) == 1 else ("images",)
    takes = tuple(spec for name, spec in inputs.items() if name == images_name)

    def call(images, training):
        # The first format has another graph for training, which TensorFlow 2 cannot run.
        return _features(function(**{images_name: images}))

    return Module(
        call=call,
        variables=tuple(root.variables),
        are_trainable=(False,) * len(root.variables),
        penalties=(),
        takes=takes,
        image_size=_image_size(takes),
        can_be_trained=False,
        files=files,
        root=root,
    )


def _features(outputs):
    if isinstance(outputs, dict):
        if "default" not in outputs and len(outputs) > 1:
            names = ", ".join(sorted(map(str, outputs)))
            raise UserError(f"the module gives several things ({names}), none called default")
        outputs = outputs.get("default", next(iter(outputs.values()), None))
    if not tf.is_tensor(outputs):
        raise UserError(f"the module gives {type(outputs).__name__}, not one tensor of features")
    return outputs


def _images_in(signatures):
    """Return the first TensorSpec of each signature, each once."""
    found = {}
    for signature in signatures:
        specs = [each for each in tf.nest.flatten(signature) if isinstance(each, tf.TensorSpec)]
        found.update({(str(each.shape), each.dtype): each for each in specs[:1]})
    return tuple(found.values())


def _image_size(takes):
    for each in takes:
        if each.shape.rank == 4:
            height, width = each.shape[1:3]
            return (height, width) if height and width else None
    return None


def _check_graph(content, folder):
    """Raise UserError if the graph would run Python or read or write files by itself."""
    try:
        graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    except Exception as error:
        raise UserError(
            f"{folder} is damaged: {GRAPH} cannot be parsed{deletion_hint(folder)}"
        ) from error
    found = sorted({step for graph in graphs for step in find_unsafe_ops(graph)})
    if found:
        raise UserError(
            f"{folder} is refused: its graph reaches outside itself ({', '.join(found)})"
        )


def unique_names(names):
    """Return as many names, no two of them equal: the first keeps its own, later ones get a number.

    `kernel`, `bias`, `kernel` become `kernel`, `bias`, `kernel_1`.
    """
    names = list(names)
    given, found = set(names), {}
    for name in names:
        if name in found:
            numbered = (f"{name}_{number}" for number in count(1))
            name = next(each for each in numbered if each not in given and each not in found)
        found[name] = None
    return list(found)
