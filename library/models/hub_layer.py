"""A TF-Hub SavedModel as a Keras 3 layer, saved with everything that it needs.

TensorFlow Hub's own KerasLayer is for Keras 2 (tensorflow/hub issue 920).
"""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from library.errors import UserError, first_line
from library.limits import limits
from library.models.hub_download import resolve_module
from library.models.saved_model import HubModule, load_module, unique_names

# How long a module may take to be loaded, and to compute the features of one image.
_LOAD_SECONDS, _TRIAL_SECONDS, _TRIAL_EDGE = 300, 60, 32
# How much memory a module may take beside its files, while it is loaded and for three images.
_MEMORY_BYTES, _MEMORY_PER_BYTE = 1 << 30, 8


@keras.saving.register_keras_serializable("library")
class HubLayer(keras.layers.Layer):
    """The features that a TF-Hub SavedModel computes for images.

    Takes float32 pixels in [0, 1], shape (batch, height, width, 3), as such modules want them.
    Returns the module's output: float32, shape (batch, features) for a feature vector. While any
    of it is frozen it runs in inference mode: BatchNormalization does not update its statistics.
    """

    def __init__(
        self,
        handle: str | Path,
        trainable: bool = False,
        sha256: str | None = None,
        outputs: tuple[Sequence[int | None], str] | None = None,
        **options: Any,
    ) -> None:
        """Load the module.

        Args:
            handle: A URL, a folder, an archive or a gs:// path. In a saved layer, which contains
                the module itself, it only records where that came from.
            trainable: Whether to fine-tune the module.
            sha256: The hash that the module must have, as `hash_module` returns it.
            outputs: (shape, dtype) of the module's output, if the layer is read from a file: Keras
                builds the model before it reads the layer's module.
            options: Options of every Keras layer.

        Raises:
            UserError: The module cannot be loaded, or cannot be fine-tuned.
        """
        # float32 under mixed precision too: the module's graph was made for it.
        super().__init__(trainable=trainable, **{**options, "dtype": "float32"})
        self.handle = str(handle)
        self.sha256 = sha256
        self.outputs = outputs
        self._module: HubModule | None = None
        self._module_variables: list[keras.Variable] = []
        self._values: list[np.ndarray] | None = None
        if outputs is None:
            folder = resolve_module(handle, sha256)
            stored = sum(each.stat().st_size for each in Path(folder).rglob("*"))
            memory_bytes = _MEMORY_BYTES + _MEMORY_PER_BYTE * stored
            with limits(UserError(f"cannot load the module {handle}"), _LOAD_SECONDS, memory_bytes):
                module = load_module(folder)
            if trainable and not any(module.are_trainable):
                raise UserError(f"the module {handle} cannot be fine-tuned; use --no_fine_tuning")
            self._set_module(module)
        self.built = True

    @property
    def module(self) -> HubModule:
        """The loaded module."""
        if self._module is None:
            raise UserError("a HubLayer's module is in its .keras file; load that")
        return self._module

    @property
    def named_variables(self) -> dict[str, keras.Variable]:
        """The variables by their names in the module, in the module's order.

        Repeated names get a number: a module made of a Keras 3 network has each variable twice,
        and lists those first that it uses.
        """
        names = unique_names(each.name.split(":")[0] for each in self.module.variables)
        return dict(zip(names, self._module_variables, strict=True))

    def _set_module(self, module: HubModule) -> None:
        self._module = module
        # An attribute of the layer, so that an export finds the module's tables and constants.
        self._root = module.root
        for variable, is_trainable in zip(module.variables, module.are_trainable, strict=True):
            # Wraps the module's variable itself, so that optimizer, checkpoint and export see it.
            wrapper = keras.Variable(
                initializer=variable,
                trainable=is_trainable,
                name=variable.name.split(":")[0].replace("/", "_"),
            )
            self._track_variable(wrapper)
            self._module_variables.append(wrapper)
        # Passes it on to these variables.
        self.trainable = self._trainable

    def call(self, images: Any, training: bool = False) -> Any:
        """Return the features of a batch of images."""
        module = self.module
        if self.trainable:
            for loss in module.regularization_losses:
                self.add_loss(loss() if callable(loss) else loss)
        # The module has one switch for all of it: in training mode its frozen part, too, would
        # normalize with the statistics of each batch.
        is_whole = self.trainable and all(each.trainable for each in self._trainable_variables)
        return module.call(images, bool(training) and is_whole)

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raise UserError unless the module returns one vector of features for each image.

        To be called before building a network: an error that is raised while Keras builds one is
        many lines long.
        """
        images = tf.TensorSpec((None, *image_shape), tf.float32)
        specs = self.module.input_specs
        if specs and not any(each.is_compatible_with(images) for each in specs):
            raise UserError(
                f"the module {self.handle} takes {' or '.join(map(_describe, specs))}, "
                f"not images: {_describe(images)}"
            )
        try:
            features = self._trace(images)
        except Exception as error:
            # TensorFlow and the module's own code raise errors of many kinds.
            raise UserError(
                f"cannot use the module {self.handle} for {_describe(images)}: {first_line(error)}"
            ) from error
        is_vector = features.shape.rank == 2 and features.shape[0] is None and features.shape[1]
        if not (is_vector and features.dtype.is_floating):
            raise UserError(
                f"the module {self.handle} returns {_describe(features)} for {_describe(images)}, "
                "not one vector of features for each image"
            )
        self._try(image_shape)

    def _try(self, image_shape: Sequence[int]) -> None:
        """Run the module on an image of noise, a black one and a white one.

        The process ends if it does not come back, or takes too much memory.
        """
        noise = np.random.default_rng(0).uniform(size=image_shape)
        images = np.stack([noise, 0 * noise, 0 * noise + 1]).astype(np.float32)
        error = UserError(f"the module {self.handle} does not come to an end")
        # An error is not raised here, but where the module is used.
        with limits(error, _TRIAL_SECONDS, _MEMORY_BYTES), contextlib.suppress(Exception):
            self.module.call(images, False)

    def _trace(self, images: tf.TensorSpec) -> Any:
        # Without AutoGraph, whose errors have many lines.
        traced = tf.function(lambda x: self.module.call(x, False), autograph=False)
        return traced.get_concrete_function(images).structured_outputs

    def compute_output_spec(self, images: Any, training: bool = False) -> keras.KerasTensor:
        """Return the symbolic output: the module's own, for the images' shape."""
        if self._module is not None:
            features = self._trace(tf.TensorSpec(images.shape, tf.float32))
            self.outputs = (tuple(features.shape), features.dtype.name)
        assert self.outputs is not None  # As from_config passes it.
        shape, dtype = self.outputs
        return keras.KerasTensor(tuple(shape), dtype=dtype)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the layer that a file describes. Its module is in that file, never elsewhere."""
        if config.get("outputs") is None:
            raise UserError(f"a HubLayer of {config.get('handle')} has no module in its file")
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer, for `from_config`."""
        own = {"handle": self.handle, "sha256": self.sha256, "outputs": self.outputs}
        return {**super().get_config(), **own}

    def save_assets(self, folder: str) -> None:
        """Write the module's graph; the values of its variables are saved as any layer's."""
        for name, content in self.module.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def load_assets(self, folder: str) -> None:
        """Read the module's graph, and assign to its variables the values read before."""
        if self._module is not None:
            return
        if Path(folder, "assets").is_dir():
            # Keras deletes its folder soon, but an export copies the words of tables from there.
            copy = tempfile.mkdtemp(prefix="module-")
            weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
            folder = shutil.copytree(folder, copy, dirs_exist_ok=True)
        self._set_module(load_module(folder, restore=False))
        self._assign(self._values or [])
        self._values = None
        # Of unknown size, if the module takes any.
        height, width = self.module.image_size or (_TRIAL_EDGE, _TRIAL_EDGE)
        self._try((height, width, 3))

    def save_own_variables(self, store: Any) -> None:
        """Write the values of the module's variables, in the module's order."""
        for number, variable in enumerate(self._module_variables):
            store[str(number)] = variable

    def load_own_variables(self, store: Any) -> None:
        """Read the values of the module's variables, or keep them until the module is read."""
        values = [np.asarray(store[str(number)]) for number in range(len(store.keys()))]
        if self._module is None:
            self._values = values
        else:
            self._assign(values)

    def _assign(self, values: list[np.ndarray]) -> None:
        if len(values) != len(self._module_variables):
            raise ValueError(
                f"{len(values)} values for the {len(self._module_variables)} variables of a module"
            )
        for variable, value in zip(self._module_variables, values, strict=True):
            variable.assign(value)


def _describe(tensor: Any) -> str:
    return f"{tensor.dtype.name} of shape {tensor.shape}"
