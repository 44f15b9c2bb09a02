"""Use a TF-Hub module whose call does not come to an end, with low limits.

Its `main` takes what is endless, and the folder for the module.
"""

import keras
import tensorflow as tf

from library.models import hub_layer, inference
from tests.helpers.hub_modules import save_call


def _loop_while(is_so, sums):
    return sums + tf.while_loop(lambda x: is_so, lambda x: tf.abs(x), [sums[0, 0]])[0]


def main(arguments):
    """Check the module as a network is built, then call it on white images."""
    kind, folder = arguments

    def call(images):
        sums = tf.reduce_mean(images, [1, 2])
        brightest = tf.reduce_max(sums)
        if kind == "memory":
            return sums + tf.reduce_max(tf.random.uniform([30_000, 30_000]) + brightest)
        least = {"loop": -1, "loop_on_white": 0.99, "loop_later": 2}[kind]
        return _loop_while(brightest > least, sums)

    save_call(folder, call, None, 6, 6, 3)
    hub_layer._TRIAL_SECONDS = 60 if kind == "memory" else 0.5
    hub_layer._MEMORY_BYTES = 2**29
    inference._MODULE_SECONDS = 0.5
    layer = hub_layer.HubLayer(folder)
    layer.check_images((6, 6, 3))
    pixels = keras.Input((6, 6, 3))
    inference.Inference(keras.Model(pixels, layer(pixels)))(tf.fill([1, 6, 6, 3], 3.0))
