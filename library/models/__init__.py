"""Pretrained modules, layer freezing, weights and cached features."""

from library.tensorflow_import import set_up_keras

set_up_keras()
