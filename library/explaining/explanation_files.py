"""An explanation as PNGs and one page, in a folder that is written whole or not at all."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from library.explaining.explanation import Explanation, ImageExplanation
from library.explaining.overlays import encode_image, enlarge, overlay_heatmap, to_rgb_image
from library.figures.contact_sheet import draw_sheet
from library.figures.html import data_url, render
from library.figures.kernels import kernel_grid
from library.files import new_folder

PAGE = "explain.html"
_MIN_EDGE_PIXELS = 224
_MAX_PAGE_EDGE_PIXELS = 448
# Small images are no larger without loss.
_MAX_LOSSLESS_EDGE_PIXELS = 64
_MAX_CLASSES = 5


def write_explanation(explanation: Explanation, folder: str | Path, subject: str) -> Path:
    """Write the folder anew, with the page and its images as PNGs, and return the page's path.

    Args:
        explanation: What to write.
        folder: Gets `explain.html`; `overlays/` and `neighbors/` with a PNG for each image;
            `feature_maps/` with one for each layer; `kernels.png`.
        subject: Which network it is about.
    """
    with new_folder(folder) as partial:
        for number, each in enumerate(explanation.images, 1):
            name = f"{number:02d}_{_plain(Path(each.image.name).stem)}.png"
            _write(partial / "overlays" / name, _draw_overlays(each))
            if each.neighbors:
                _write(partial / "neighbors" / name, _draw_neighbors(each))
        for number, layer in enumerate(explanation.layers, 1):
            name = f"{number:03d}_{_plain(layer.name)}.png"
            _write(partial / "feature_maps" / name, layer.drawing)
        if explanation.kernels is not None:
            _write(partial / "kernels.png", draw_kernels(explanation.kernels))
        (partial / PAGE).write_text(render_explanation(explanation, subject), encoding="utf-8")
    return Path(folder) / PAGE


def render_explanation(explanation: Explanation, subject: str) -> str:
    """Return the page. `subject` says which network it is about."""
    kernels = explanation.kernels
    return render(
        "library.explaining",
        "explanation.html",
        explanation=explanation,
        subject=subject,
        images=[_image_values(each) for each in explanation.images],
        kernels_url=None if kernels is None else _url(draw_kernels(kernels)),
        layers=[(layer, _url(_shrink(layer.drawing))) for layer in explanation.layers],
    )


def explanation_json(explanation: Explanation) -> dict:
    """Return the explanation without its images, for JSON."""
    images = [
        {
            "file": each.image.name,
            "class": each.ranking[0][0],
            "probability": each.ranking[0][1],
            "truth": each.image.true_classes and list(each.image.true_classes),
            "nearest": [
                {"file": near.name, "classes": list(names), "similarity": near.similarity}
                for near, names in each.neighbors
            ],
        }
        for each in explanation.images
    ]
    return {"method": explanation.method, "layer": explanation.layer, "images": images}


def draw_kernels(kernels: np.ndarray) -> Image.Image:
    """Return kernels, (height, width, in, out), enlarged so that each weight can be seen."""
    grid = (255 * kernel_grid(kernels)).round().astype(np.uint8)
    return enlarge(to_rgb_image(grid), _MIN_EDGE_PIXELS)


def _image_values(explanation: ImageExplanation) -> dict:
    """Return what the template shows of one image."""
    plain = enlarge(to_rgb_image(explanation.image.pixels), _MIN_EDGE_PIXELS)
    return {
        "explanation": explanation,
        "url": _url(plain),
        "heatmaps": [
            (name, bool(heatmap.any()), _url(overlay_heatmap(plain, heatmap)))
            for name, heatmap in explanation.heatmaps.items()
        ],
        "ranking": explanation.ranking[:_MAX_CLASSES],
        "neighbors": [
            (near, names, _url(to_rgb_image(near.pixels))) for near, names in explanation.neighbors
        ],
    }


def _draw_overlays(explanation: ImageExplanation) -> Image.Image:
    plain = enlarge(to_rgb_image(explanation.image.pixels), _MIN_EDGE_PIXELS)
    overlays = [overlay_heatmap(plain, each) for each in explanation.heatmaps.values()]
    captions = ["network input", *(f"evidence for {name}" for name in explanation.heatmaps)]
    return draw_sheet([np.asarray(each) for each in (plain, *overlays)], captions, len(captions), 1)


def _draw_neighbors(explanation: ImageExplanation) -> Image.Image:
    images = [explanation.image.pixels, *(near.pixels for near, _ in explanation.neighbors)]
    captions = [
        "network input",
        *(f"{near.similarity:.2f} {', '.join(names)}" for near, names in explanation.neighbors),
    ]
    return draw_sheet(images, captions)


def _shrink(drawing: Image.Image) -> Image.Image:
    small = drawing.copy()
    small.thumbnail((_MAX_PAGE_EDGE_PIXELS, _MAX_PAGE_EDGE_PIXELS))
    return small


def _url(image: Image.Image) -> str:
    is_small = max(image.size) <= _MAX_LOSSLESS_EDGE_PIXELS
    options = {"lossless": True} if is_small else {"quality": 82}
    return data_url(encode_image(image, "WEBP", **options), "image/webp")


def _write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_image(image))


def _plain(text: str) -> str:
    """Return a file name that any system accepts: letters, digits, dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60] or "image"
