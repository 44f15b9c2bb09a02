"""The page about a dataset."""

import re

from library.dataset.images import ImageOptions
from library.describing.dataset_page import render_dataset_page
from tests.describing.test_dataset_summary import folder, inspected

__all__ = ["folder"]


def test_page_holds_its_images(folder):
    with inspected(folder, "train", "test") as found:
        page = render_dataset_page(found, ImageOptions())
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources[0] == "data:,"
    assert sources[1:]
    assert all(each.startswith("data:image/jpeg;base64,") for each in sources[1:])
    assert "several splits (leak): 1</h2>" in page


def test_page_escapes_names(folder):
    (folder / "train" / "<script>").mkdir()
    (folder / "train" / "<script>" / "x.png").write_bytes(b"rubbish")
    with inspected(folder, "train") as found:
        page = render_dataset_page(found, ImageOptions())
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
