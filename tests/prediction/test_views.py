import numpy as np
import pytest

from library.prediction.ensemble import VIEWS, find_views

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)


def test_the_first_views_are_the_image_and_its_mirror_image():
    whole, flipped = find_views(2)
    assert np.array_equal(whole(IMAGES), IMAGES)
    assert np.array_equal(flipped(IMAGES), IMAGES[:, :, ::-1])


def test_crops_keep_the_size_and_show_their_corner():
    images = np.zeros((1, 16, 16, 1), np.float32)
    images[:, :2, :2] = 255  # the left upper corner, which the opposite crop leaves out
    sums = {name: float(np.sum(view(images))) for name, view in VIEWS.items()}
    assert all(view(IMAGES).shape == IMAGES.shape for view in VIEWS.values())
    assert sums["bottom_right_crop"] == sums["top_right_crop"] == sums["bottom_left_crop"] == 0
    assert sums["top_left_crop"] > sums["whole"] > sums["center_crop"] > 0


def test_a_crops_mirror_image_follows_it():
    views = find_views(12)
    assert np.array_equal(views[3](IMAGES), views[2](IMAGES)[:, :, ::-1])
    assert len({np.asarray(view(IMAGES)).tobytes() for view in views[1:]}) == 11


@pytest.mark.parametrize("count", [0, 13])
def test_there_are_twelve(count):
    with pytest.raises(ValueError, match=f"there are 1 to 12 views, not {count}"):
        find_views(count)
