import numpy as np
from PIL import Image

from library.describing.augmentation_gallery import (
    augmented_scenes,
    draw_gallery,
    draw_scene,
    gallery_page,
    write_gallery,
)
from project.augmentations import AUGMENTATIONS

SHOWN = {name: AUGMENTATIONS[name] for name in ("distorted_crop", "flip", "hue", "cutmix")}


def test_draw_scene_by_day_and_by_night():
    day, night = draw_scene(), draw_scene(is_night=True)
    assert day.shape == night.shape == (176, 176, 3)
    assert day.mean() > night.mean() + 40


def test_augmented_scenes_of_each_kind():
    for name in SHOWN:
        images = augmented_scenes(name, SHOWN, 6)
        assert len(images) == 6
        assert {(each.shape, str(each.dtype)) for each in images} == {((96, 96, 3), "uint8")}
        assert len({np.asarray(each).tobytes() for each in images}) > 1


def test_draw_gallery_has_a_row_per_augmentation():
    one, all_ = draw_gallery({"flip": SHOWN["flip"]}), draw_gallery(SHOWN)
    assert one.width == all_.width
    assert all_.height - 4 == 4 * (one.height - 4)


def test_write_gallery_writes_page_and_sheet(tmp_path):
    write_gallery(SHOWN, "# Augmentations", tmp_path)
    page = (tmp_path / "augmentations.md").read_text()
    assert page == gallery_page(SHOWN, "# Augmentations")
    assert all(f"| `{name}` |" in page for name in SHOWN)
    written = np.asarray(Image.open(tmp_path / "augmentations.webp").convert("RGB"), int)
    # WEBP loses 4 or so; images of another seed differ by 6 to 90 in some column.
    apart = np.abs(written - np.asarray(draw_gallery(SHOWN), int))
    assert max(each.mean() for each in np.array_split(apart, 8, axis=1)) < 5
