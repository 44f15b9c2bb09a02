"""TFRecord files as other programs write them, with TensorFlow's own writer."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image


def write_examples(path, *examples, compression=""):
    """Write examples, each a mapping of field names to a value or a list of values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for example in examples:
            features = {name: _feature(value) for name, value in example.items()}
            message = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(message.SerializeToString())
    return path


def image_bytes(shade=0, size=(16, 12), kind="jpeg", mode="RGB"):
    """Return an encoded image of one shade."""
    file = io.BytesIO()
    color = (shade,) * len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, size, color if len(color) > 1 else shade).save(file, kind)
    return file.getvalue()


def _feature(value):
    values = value if isinstance(value, list | tuple | np.ndarray) else [value]
    if all(isinstance(each, bytes | str) for each in values):
        content = [each.encode() if isinstance(each, str) else each for each in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=content))
    if any(isinstance(each, float) for each in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
