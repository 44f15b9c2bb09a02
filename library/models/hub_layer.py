"""A TF-Hub SavedModel as a Keras 3 layer, saved with all that it needs.

TensorFlow Hub's own KerasLayer is a Keras 2 layer, which Keras 3 refuses.
"""

import shutil
import tempfile
import weakref
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from library.errors import UserError, first_line
from library.models.hub_download import resolve_module
from library.models.saved_model import load_module, unique_names


@keras.saving.register_keras_serializable("library")
class HubLayer(keras.layers.Layer):
    """The features that a TF-Hub SavedModel gives for images.

    Takes float32 pixels in [0, 1], shape (batch, height, width, 3), as such modules want them.
    Returns what module gives: float32, shape (batch, features) for a feature vector. Frozen, also
    in part, it runs in inference mode: BatchNormalization keeps the statistics it came with.

    `handle` is a URL, a folder, an archive or gs://; `sha256` the hash that it must have. A saved
    layer holds the module itself, graph and weights: `handle` then only tells where it came from.
    Raises UserError if the module cannot be loaded.
    """

    def __init__(self, handle, trainable=False, sha256=None, outputs=None, **options):
        # In float32 under mixed precision too: the module's graph was made for that.
        super().__init__(**{**options, "dtype": "float32"})
        self.handle = str(handle)
        self.sha256 = sha256
        # What the module gives, (shape, dtype). Known from the start where the layer is read from
        # a file, because Keras lays the network out before it reads what belongs to the layers.
        self.outputs = outputs
        self._module = None
        self._module_variables = []
        self._values = None
        if outputs is None:
            self._adopt(load_module(resolve_module(handle, sha256)))
        self.trainable = trainable
        if trainable and outputs is None and not self._module.can_be_trained:
            raise UserError(f"the module {handle} cannot be fine-tuned: use --no_fine_tuning")
        self.built = True

    @property
    def image_size(self):
        """The (height, width) that the module takes, or None if it takes any."""
        return self._module.image_size

    @property
    def named_variables(self):
        """The module's variables as {name in the module: Keras variable}, in the module's order.

        Of equal names later ones get a number: a module made of a Keras 3 network holds each
        variable twice, and lists those first that it uses.
        """
        names = unique_names(each.name.split(":")[0] for each in self._module.variables)
        return dict(zip(names, self._module_variables, strict=True))

    def _adopt(self, module):
        self._module = module
        # Assigned to the layer, so that an export finds the module's tables and constants.
        self._root = module.root
        for variable, is_trainable in zip(module.variables, module.are_trainable, strict=True):
            # Wraps the module's very variable, so that optimizer, checkpoint and export see it.
            tracked = keras.Variable(
                initializer=variable,
                trainable=is_trainable,
                name=variable.name.split(":")[0].replace("/", "_"),
            )
            self._track_variable(tracked)
            self._module_variables.append(tracked)

    def call(self, images, training=False):
        """Return the features of a batch of images."""
        if self._module is None:
            raise UserError("a HubLayer's module comes with its .keras file: load that")
        if self.trainable:
            for penalty in self._module.penalties:
                self.add_loss(penalty() if callable(penalty) else penalty)
        return self._module.call(images, training=bool(training) and self._trains_whole())

    def _trains_whole(self):
        # One switch for the whole module: in training mode the frozen part of it would normalize
        # with the statistics of each batch, too, and what comes after it would not know it again.
        learned = zip(self._module_variables, self._module.are_trainable, strict=True)
        return self.trainable and all(each.trainable for each, is_learned in learned if is_learned)

    def check_images(self, image_shape):
        """Raise UserError unless the module gives one vector of features for each such image.

        For who makes a network: what is raised while Keras lays it out is no clear line any more.
        """
        wanted = tf.TensorSpec((None, *image_shape), tf.float32)
        takes = self._module.takes
        if takes and not any(each.is_compatible_with(wanted) for each in takes):
            raise UserError(
                f"the module {self.handle} takes {' or '.join(map(_in_words, takes))}, "
                f"not images: {_in_words(wanted)}"
            )
        try:
            given = self._trace(wanted)
        except UserError as error:
            raise UserError(f"{self.handle}: {error}") from error
        except Exception as error:
            # TensorFlow and what the module's authors wrote raise whatever they like.
            raise UserError(
                f"the module {self.handle} does not take {_in_words(wanted)}: {first_line(error)}"
            ) from error
        is_vector = given.shape.rank == 2 and given.shape[0] is None and given.shape[1]
        if not (is_vector and given.dtype.is_floating):
            raise UserError(
                f"the module {self.handle} gives {_in_words(given)} for {_in_words(wanted)}, "
                "not one vector of features for each image"
            )

    def _trace(self, images):
        # Without AutoGraph, whose errors are of many lines.
        traced = tf.function(lambda x: self._module.call(x, training=False), autograph=False)
        return traced.get_concrete_function(images).structured_outputs

    def compute_output_spec(self, images, training=False):
        """Return the symbolic output: the module's own, for the images' shape."""
        if self._module is not None:
            given = self._trace(tf.TensorSpec(images.shape, tf.float32))
            self.outputs = (tuple(given.shape), given.dtype.name)
        shape, dtype = self.outputs
        return keras.KerasTensor(tuple(shape), dtype=dtype)

    def get_config(self):
        """Return what `from_config` needs to make the layer again."""
        own = {"handle": self.handle, "sha256": self.sha256, "outputs": self.outputs}
        return {**super().get_config(), **own}

    def save_assets(self, folder):
        """Write the module's graph; the values of its variables are saved as any layer's."""
        for name, content in self._module.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def load_assets(self, folder):
        """Read the module's graph, and give its variables the values read before."""
        if self._module is not None:
            return
        trainable = self.trainable
        if Path(folder, "assets").is_dir():
            # Keras deletes its folder soon; an export still copies the words of tables from there.
            kept = tempfile.mkdtemp(prefix="module-")
            weakref.finalize(self, shutil.rmtree, kept, ignore_errors=True)
            folder = shutil.copytree(folder, kept, dirs_exist_ok=True)
        self._adopt(load_module(folder, restore=False))
        self.trainable = trainable
        self._assign(self._values)
        self._values = None

    def save_own_variables(self, store):
        """Write the values of the module's variables, in the module's order."""
        for number, variable in enumerate(self._module_variables):
            store[str(number)] = variable

    def load_own_variables(self, store):
        """Read the values of the module's variables; without a module, keep them for it."""
        values = [np.asarray(store[str(number)]) for number in range(len(store.keys()))]
        if self._module is None:
            self._values = values
        else:
            self._assign(values)

    def _assign(self, values):
        if len(values) != len(self._module_variables):
            raise ValueError(
                f"{len(values)} values for the {len(self._module_variables)} variables of a module"
            )
        for variable, value in zip(self._module_variables, values, strict=True):
            variable.assign(value)


def _in_words(tensor):
    return f"{tensor.dtype.name} of shape {tensor.shape}"
