"""Before the first step: what is trained on what, in a line, and whether a batch goes through."""

import tensorflow as tf

from library.counted import counted, counted_classes


def introduce(network, classes, training, validation, devices):
    """Give one line for the start: the network, the data and the devices."""
    return (
        f"{network.name}: {network.count_params():,} parameters; {counted_classes(len(classes))}, "
        f"{training.examples:,} training and {counted(validation.examples, 'validation image')}, "
        f"{counted(training.batches_per_epoch, 'step')} of {training.batch_size} an epoch, "
        f"on {devices.describe(training.batch_size)}"
    )


def check_one_batch(network, objective, training, validation):
    """Run one batch of each split through the network. Give one line with the shapes."""
    words = []
    for name, batches in (("training", training.batches(0)), ("validation", validation.batches())):
        images, labels = next(iter(batches))
        scores = network(tf.cast(images, tf.float32), training=False)
        objective.measures(labels, scores)
        words.append(f"{name} images {tuple(images.shape)} → scores {tuple(scores.shape)}")
    return "dry run, nothing written: " + ", ".join(words)
