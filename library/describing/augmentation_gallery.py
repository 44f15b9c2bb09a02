"""A page about all augmentations of a registry, and a sheet that shows examples of each."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from library.augmentation.pipeline import BATCH, Augmentation, Augmentations
from library.figures.contact_sheet import draw_sheet
from library.files import write_file
from library.inputs.decoding import resize

_EDGE_PIXELS = 96
_EXAMPLES = 7
Registry = Mapping[str, Augmentation]


def write_gallery(registry: Registry, introduction: str, folder: str | Path) -> None:
    """Write `augmentations.md` and `augmentations.webp` about a registry into a folder."""
    content = io.BytesIO()
    draw_gallery(registry).save(content, "WEBP", quality=72)
    write_file(Path(folder) / "augmentations.webp", content.getvalue())
    write_file(Path(folder) / "augmentations.md", gallery_page(registry, introduction))


def gallery_page(registry: Registry, introduction: str) -> str:
    """Return the page, in Markdown: introduction, a table of the registry, and the sheet."""
    rows = [
        f"| `{name}` | {each.strength:g} | {each.largest:g} | {each.acts_on} | "
        f"{(each.function.__doc__ or '').partition(chr(10))[0]} |"
        for name, each in registry.items()
    ]
    head = "| name | strength | largest | acts on | what it does |\n| --- | --- | --- | --- | --- |"
    sheet = (
        "Left the image as it is, then examples of each augmentation at the strength of its bare "
        "name:\n\n![each augmentation of one image](augmentations.webp)"
    )
    return "\n\n".join((introduction, head + "\n" + "\n".join(rows), sheet)) + "\n"


def draw_gallery(registry: Registry) -> Image.Image:
    """Return the sheet: one row per augmentation."""
    images, captions = [], []
    for name in registry:
        images += [resize_scene(draw_scene()), *augmented_scenes(name, registry, _EXAMPLES)]
        captions += [name, *[""] * _EXAMPLES]
    return draw_sheet(images, captions, columns=_EXAMPLES + 1, least_edge=_EDGE_PIXELS)


def augmented_scenes(name: str, registry: Registry, count: int) -> list[np.ndarray]:
    """Return `count` examples of what one augmentation does to the scene, uint8 images."""
    chosen = Augmentations([name], registry)
    seeds = [chosen.seeds(tf.constant([1, each], tf.int64)) for each in range(2 * count)]
    if registry[name].acts_on == BATCH:
        # Every other image, because neighbors are the two halves of one mixture.
        scenes = [resize_scene(draw_scene(bool(each % 2))) for each in range(2 * count)]
        targets = tf.zeros([2 * count, 2])
        mixed, _ = chosen.mix(tf.constant(np.stack(scenes)), targets, tf.stack(seeds))
        return list(mixed.numpy()[::2])
    return [_augmented_scene(chosen, each) for each in seeds[:count]]


def _augmented_scene(chosen: Augmentations, seeds: tf.Tensor) -> np.ndarray:
    scene = draw_scene()
    if crop := chosen.crop(seeds):
        y, x, height, width = crop(tf.constant(scene.shape)).numpy()
        scene = scene[y : y + height, x : x + width]
    return chosen.apply(tf.constant(resize_scene(scene)), seeds).numpy()


def resize_scene(scene: np.ndarray) -> np.ndarray:
    """Return a scene at the size in which it is shown."""
    return resize(tf.constant(scene), (_EDGE_PIXELS, _EDGE_PIXELS)).numpy()


def draw_scene(is_night: bool = False) -> np.ndarray:
    """Return a house beside a tree, uint8 (176, 176, 3); drawn here, so free of any license."""
    sky = ((28, 32, 78), (84, 60, 110)) if is_night else ((86, 156, 226), (206, 230, 246))
    rows = np.linspace(0, 1, 704)[:, np.newaxis, np.newaxis]
    pixels = (1 - rows) * np.array(sky[0]) + rows * np.array(sky[1])
    image = Image.fromarray(pixels.repeat(704, 1).round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((500, 60, 620, 180), (240, 240, 220) if is_night else (252, 206, 70))
    draw.ellipse((-200, 470, 900, 1100), (34, 70, 52) if is_night else (108, 172, 76))
    draw.rectangle((300, 360, 580, 580), (196, 120, 92))
    draw.polygon(((270, 370), (440, 220), (610, 370)), (132, 50, 44))
    draw.rectangle((410, 470, 480, 580), (84, 52, 36))
    for left in (330, 510):
        draw.rectangle(
            (left, 410, left + 48, 458), (255, 224, 120) if is_night else (222, 238, 246)
        )
    draw.rectangle((128, 360, 160, 600), (96, 64, 40))
    for x, y, radius in ((144, 290, 100), (84, 350, 70), (208, 346, 66)):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, (24, 62, 40) if is_night else (46, 120, 56))
    return np.asarray(image.resize((176, 176), Image.Resampling.LANCZOS))
