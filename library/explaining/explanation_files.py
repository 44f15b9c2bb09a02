"""An explanation as PNGs and one page, in a folder that is written whole or not at all."""

import re
from pathlib import Path

import numpy as np

from library.explaining.explanation_page import page
from library.explaining.overlays import encode_image, enlarge, overlay_heatmap, to_color
from library.figures.contact_sheet import draw_sheet
from library.figures.kernels import kernel_grid
from library.files import new_folder

PAGE = "explain.html"
_LEAST_EDGE = 224


def write_explanation(explanation, folder, subject):
    """Write the folder anew. `subject` says what network it is about. Give the page's path.

    Beside the page: `overlays/`, `neighbors/`, one PNG for each picture; `feature_maps/`, one for
    each layer; `kernels.png`.
    """
    with new_folder(folder) as partial:
        for number, answer in enumerate(explanation.answers, 1):
            name = f"{number:02d}_{_plain(Path(answer.picture.name).stem)}.png"
            _write(partial / "overlays" / name, draw_answer(answer))
            if answer.nearest:
                _write(partial / "neighbors" / name, _draw_nearest(answer))
        for number, each in enumerate(explanation.layers, 1):
            _write(partial / "feature_maps" / f"{number:03d}_{_plain(each.name)}.png", each.drawing)
        if explanation.kernels is not None:
            _write(partial / "kernels.png", draw_kernels(explanation.kernels))
        (partial / PAGE).write_text(page(explanation, subject, draw_kernels), encoding="utf-8")
    return Path(folder) / PAGE


def summarize(explanation):
    """Return the explanation in words and numbers, as JSON has them."""
    answers = [
        {
            "file": each.picture.name,
            "class": each.ranking[0][0],
            "probability": each.ranking[0][1],
            "truth": each.picture.truths and list(each.picture.truths),
            "nearest": [
                {"file": near.name, "classes": list(names), "similarity": near.similarity}
                for near, names in each.nearest
            ],
        }
        for each in explanation.answers
    ]
    return {"method": explanation.method, "layer": explanation.layer, "images": answers}


def draw_answer(answer):
    """Return the picture and, beside it, the heat for each class, as a Pillow image."""
    plain = enlarge(to_color(answer.picture.pixels), _LEAST_EDGE)
    parts = [plain, *(overlay_heatmap(plain, heat) for heat in answer.heats.values())]
    captions = ["as the network sees it", *(f"heat for {name}" for name in answer.heats)]
    return draw_sheet([np.asarray(each) for each in parts], captions, len(parts), 1)


def draw_kernels(kernels):
    """Return the kernels as a Pillow image, large enough to see each number in them."""
    grid = (255 * kernel_grid(kernels)).round().astype(np.uint8)
    return enlarge(to_color(grid), _LEAST_EDGE)


def _draw_nearest(answer):
    images = [answer.picture.pixels, *(each.pixels for each, _ in answer.nearest)]
    captions = ["the picture"]
    captions += [f"{each.similarity:.2f} {', '.join(names)}" for each, names in answer.nearest]
    return draw_sheet(images, captions)


def _write(path, image):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_image(image))


def _plain(text):
    """Return a name that any system can write: letters, digits, dashes, no longer than 60."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60] or "picture"
