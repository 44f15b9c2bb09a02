"""A TF-Hub SavedModel as a Keras 3 layer.

TensorFlow Hub's own KerasLayer is a Keras 2 layer, which Keras 3 refuses.
"""

import warnings

import keras
import tensorflow as tf

from library.errors import UserError


@keras.saving.register_keras_serializable("library")
class HubLayer(keras.layers.Layer):
    """The features that a reusable TF-Hub SavedModel (TF2 format) gives for images.

    Takes float32 pixels in [0, 1], shape (batch, height, width, 3), as such modules want them.
    Gives what the module gives: float32, shape (batch, features) for a feature vector. Frozen, it
    runs in inference mode, so that its BatchNormalization keeps the statistics it came with.

    `handle` is a URL, a folder or an archive. Raises UserError if it cannot be loaded.
    """

    def __init__(self, handle, trainable=False, **options):
        super().__init__(trainable=trainable, **options)
        self.handle = str(handle)
        self._module = _load(self.handle)
        learnt = {id(each) for each in self._module.trainable_variables}
        for variable in self._module.variables:
            # Wraps the module's very variable, so that optimizer, checkpoint and export see it.
            tracked = keras.Variable(
                initializer=variable,
                trainable=trainable and id(variable) in learnt,
                name=variable.name.split(":")[0].replace("/", "_"),
            )
            self._track_variable(tracked)
        self.built = True

    def call(self, images, training=False):
        """Give the features of a batch of images."""
        if self.trainable:
            for loss in getattr(self._module, "regularization_losses", ()):
                self.add_loss(loss() if callable(loss) else loss)
        return self._module(images, training=bool(training) and self.trainable)

    def compute_output_spec(self, images, training=False):
        """Give the symbolic output: the module's own, for the images' shape."""
        signature = tf.TensorSpec(images.shape, tf.float32)
        traced = tf.function(lambda x: self._module(x, training=False))
        outputs = traced.get_concrete_function(signature).structured_outputs
        return keras.KerasTensor(outputs.shape, dtype=outputs.dtype.name)

    def get_config(self):
        """Give what `from_config` needs to make the layer again."""
        return {**super().get_config(), "handle": self.handle}


def _load(handle):
    with warnings.catch_warnings():
        # TensorFlow Hub 0.16.1 imports pkg_resources, which is deprecated.
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        import tensorflow_hub
    try:
        module = tensorflow_hub.load(handle)
    except Exception as error:
        # TensorFlow Hub raises whatever its resolvers raise: URLError, OSError, ValueError, ….
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot load the TF-Hub module {handle}: {reason}; "
            "--hub_handle takes a URL, a folder or an archive with a SavedModel"
        ) from error
    if not callable(module) or not hasattr(module, "trainable_variables"):
        raise UserError(
            f"the TF-Hub module {handle} is not in the reusable TF2 format: it is no callable "
            "with trainable_variables"
        )
    return module
