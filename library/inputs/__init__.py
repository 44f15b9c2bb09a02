"""Examples become batches: read, cached, balanced, decoded, batched."""

from library.tensorflow_import import set_up_keras

set_up_keras()
