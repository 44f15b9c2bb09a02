import dataclasses
import time

import pytest
import tensorflow as tf

from library.inputs.decoding import ImageFormat
from library.inputs.examples import PipelineOptions
from library.models.feature_cache import cache_split_features
from library.models.features import split_at_base
from project.augmentations import choose_augmentations
from project.inputs import EvaluationPipeline, TrainingPipeline
from project.networks.hub import hub
from tests.helpers.hub_modules import save_module
from tests.models.test_features import Pictures, check_same


class SlowPictures(Pictures):
    """Pictures of which one can take long to decode."""

    slow = None

    def load(self, key, image_format, crop=None):
        def wait(number):
            time.sleep(0.2 if number == self.slow else 0)
            return number

        return super().load(tf.ensure_shape(tf.numpy_function(wait, [key], tf.int64), []), crop)


@pytest.mark.slow
def test_each_epoch_gives_the_features_of_its_view_in_the_order_of_its_images(tmp_path):
    save_module(tmp_path / "module")
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path / "module"))
    base, _ = split_at_base(network)
    pictures, shape, said = SlowPictures(), ImageFormat(6, 3), []
    validation = EvaluationPipeline(pictures, shape, 4)
    plain = TrainingPipeline(pictures, shape, 4, 5, seed=0)

    def keep(inputs, views):
        fingerprints, folder = ("train", "validation"), tmp_path / "cache"
        return cache_split_features(
            base, inputs, validation, fingerprints, views, folder, said.append
        )

    kept = keep(plain, [()])
    assert len(said) == 2
    for epoch in (0, 1):
        check_same(base, kept.training.batches(epoch), plain.batches(epoch))
    check_same(base, kept.validation.batches(), validation.batches())

    # Two views more; those of validation are there already.
    training = dataclasses.replace(plain, augmentations=choose_augmentations(("brightness",)))
    kept = keep(training, ["first", "second"])
    assert len(said) == 4
    for epoch in (0, 1):
        check_same(base, kept.training.batches(epoch), training.batches(epoch))

    # Another order makes other views of the images.
    other_order = dataclasses.replace(training, shuffle_examples=2)
    for _ in range(2):
        kept = keep(other_order, ["first"])
        assert len(said) == 5
    check_same(base, kept.training.batches(0), other_order.batches(0))
    # But not of the images as they are.
    keep(dataclasses.replace(plain, shuffle_examples=2), [()])
    assert len(said) == 5

    # Each image is kept once, however often smaller classes are repeated.
    oversampled = dataclasses.replace(plain, is_oversampled=True)
    kept = keep(oversampled, [()])
    assert len(said) == 5
    check_same(base, kept.training.batches(0), oversampled.batches(0))

    # What is ready first comes first in training; each image's features are its own all the same.
    pictures.slow = 3
    kept = keep(
        dataclasses.replace(plain, options=PipelineOptions(deterministic=False)), ["unordered"]
    )
    assert len(said) == 6
    check_same(base, kept.training.batches(0), plain.batches(0))
