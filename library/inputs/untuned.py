"""Data sets that TensorFlow does not tune: what runs at once is said, and ending costs nothing.

tf.data (2.21) tunes each iterator from a thread, at intervals that double up to a minute. Who ends
an iterator sometimes waits for the next of them: most epochs cost nothing more, but one of 45 s was
followed by 37 s of standstill.
"""

import tensorflow as tf


def untuned(dataset):
    """Give the data set, and all that is made of it, without the thread that tunes it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
