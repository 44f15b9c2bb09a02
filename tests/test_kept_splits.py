import dataclasses

import pytest

from library.inputs.decoding import ImageFormat
from library.transfer.features import split_at_base
from library.transfer.kept_splits import keep_splits
from project.augmentations import choose_augmentations
from project.inputs import EvaluationInputs, TrainingInputs
from project.networks.hub import hub
from tests.test_features import Pictures, check_same
from tests.test_modules import save_module


@pytest.mark.parametrize("is_oversampled", [False, True])
def test_each_epoch_gives_the_features_of_its_view_in_the_order_of_its_images(
    tmp_path, is_oversampled
):
    save_module(tmp_path / "module")
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path / "module"))
    base, head = split_at_base(network)
    pictures, shape, said = Pictures(), ImageFormat(6, 3), []
    validation = EvaluationInputs(pictures, shape, 4)
    plain = TrainingInputs(pictures, shape, 4, 5, seed=0, is_oversampled=is_oversampled)
    training = dataclasses.replace(plain, augmentations=choose_augmentations(("brightness",)))

    def keep(inputs, views):
        fingerprints, folder = ("train", "validation"), tmp_path / "cache"
        return keep_splits(base, head, inputs, validation, fingerprints, views, folder, said.append)

    kept = keep(plain, [()])
    assert kept.head is head
    assert len(said) == 2
    for epoch in (0, 1):
        check_same(base, kept.training.batches(epoch), plain.batches(epoch))
    check_same(base, kept.validation.batches(), validation.batches())

    # Two views more; those of validation are there already.
    kept = keep(training, ["first", "second"])
    assert len(said) == 4
    if not is_oversampled:
        for epoch in (0, 1):
            check_same(base, kept.training.batches(epoch), training.batches(epoch))
    features = [next(iter(kept.training.batches(0, each)))[0] for each in (0, 1)]
    assert not (features[0][0] == features[1][0]).numpy().all()
