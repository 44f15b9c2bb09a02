"""The training loop and what it keeps: the latest state, the best model, the history."""

from library.tensorflow_import import set_up_keras

set_up_keras()
