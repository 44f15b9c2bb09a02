"""Checkpoints and snapshots: whole or not at all."""

from library.tensorflow_import import set_up_keras

set_up_keras()
