"""Test-time augmentation: other views of the same images, over which probabilities are averaged.

Each is a function of float32 pixels (batch, height, width, channels) that gives as many of them;
of a Keras symbol, too, so that a network can be made of them.
"""

from functools import partial

import keras

# How much of an edge a crop keeps: 7/8, as 224 of 256 pixels.
_KEPT = 0.875


def whole(images):
    """Give the images as they are."""
    return images


def flipped(images):
    """Give the images with left and right exchanged."""
    return images[:, :, ::-1]


def cropped(images, top, left):
    """Give 7/8 of each edge, enlarged again. `top` and `left`: 0 the one end, 1 the other."""
    _, height, width, _ = images.shape
    rows, columns = max(1, round(_KEPT * height)), max(1, round(_KEPT * width))
    y, x = round(top * (height - rows)), round(left * (width - columns))
    window = images[:, y : y + rows, x : x + columns]
    return keras.ops.image.resize(window, (height, width), data_format="channels_last")


def _flipped_crop(images, top, left):
    return flipped(cropped(images, top, left))


_PLACES = {
    "centre": (0.5, 0.5),
    "top_left": (0, 0),
    "bottom_right": (1, 1),
    "top_right": (0, 1),
    "bottom_left": (1, 0),
}
# In the order in which they are taken: each crop is followed by its mirror image.
VIEWS = {"whole": whole, "flip": flipped}
for _name, (_top, _left) in _PLACES.items():
    VIEWS[f"{_name}_crop"] = partial(cropped, top=_top, left=_left)
    VIEWS[f"{_name}_crop_flip"] = partial(_flipped_crop, top=_top, left=_left)


def find_views(count):
    """Give the first `count` views, 1 to 12: the whole image, it mirrored, then crops."""
    if not 1 <= count <= len(VIEWS):
        raise ValueError(f"there are 1 to {len(VIEWS)} views, not {count}")
    return list(VIEWS.values())[:count]
