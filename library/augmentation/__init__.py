"""Augmentations: pure functions of an image and a seed.

They are not Keras's layers, because these draw from a generator with state, so that no image could
be augmented again from its (seed, epoch, position); and because consecutive changes of colors, or
of coordinates, are multiplied into one matrix here, so that several cost about as much as one.
"""

from library.tensorflow_import import set_up_keras

set_up_keras()
