"""A worker that notes which images it trains on, otherwise like run.py.

`{worker}` in its arguments is its index. The names are in `seen.txt` in its data folder, one per
line, in order.
"""

import json
import os
from pathlib import Path

import tensorflow as tf

import run
from library.inputs.examples import ShardSource
from library.training.tensorboard import TensorBoard
from project.settings import read_settings


def main(arguments):
    """Run what the arguments say."""
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    arguments = [each.replace("{worker}", str(index)) for each in arguments]
    seen = Path(read_settings(arguments).project.data_dir) / "seen.txt"
    decode = ShardSource.load

    def note(name):
        with seen.open("ab") as file:
            file.write(name + b"\n")
        return True

    def noting(self, key, image_format, *crop):
        # Only training passes a crop, even if there is none.
        if not crop:
            return decode(self, key, image_format)
        with tf.control_dependencies([tf.numpy_function(note, [self.filename(key)], tf.bool)]):
            return decode(self, tf.identity(key), image_format, *crop)

    ShardSource.load = noting
    # The chief decodes one more batch, for TensorBoard to show.
    TensorBoard._introduce = lambda self, step: None
    run.main(arguments)
