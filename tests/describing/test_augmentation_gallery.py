import numpy as np

from library.describing.augmentation_gallery import draw_gallery, draw_scene, examples_of
from project.augmentations import AUGMENTATIONS

SHOWN = {name: AUGMENTATIONS[name] for name in ("distorted_crop", "flip", "hue", "cutmix")}


def test_the_scene_has_a_day_and_a_night():
    day, night = draw_scene(), draw_scene(is_night=True)
    assert day.shape == night.shape == (176, 176, 3)
    assert day.mean() > night.mean() + 40


def test_each_kind_is_shown_changed():
    for name in SHOWN:
        images = examples_of(name, SHOWN, 6)
        assert len(images) == 6
        assert {(each.shape, str(each.dtype)) for each in images} == {((96, 96, 3), "uint8")}
        assert len({np.asarray(each).tobytes() for each in images}) > 1


def test_a_row_for_each_augmentation():
    one, all_ = draw_gallery({"flip": SHOWN["flip"]}), draw_gallery(SHOWN)
    assert one.width == all_.width
    assert all_.height - 4 == 4 * (one.height - 4)
