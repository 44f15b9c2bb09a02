"""Augmentations: pure functions of an image and a seed.

They are not Keras's layers, because these draw from a generator with state, so that no image could
be augmented again from its (seed, epoch, position); and because neighbors in the list that change
colors or coordinates are multiplied into one matrix, which is several times faster.
"""
