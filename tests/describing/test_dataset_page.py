import re

from library.dataset.images import ImageOptions
from library.describing.dataset_page import page
from tests.describing.test_dataset_summary import folder, inspected

__all__ = ["folder"]


def test_the_page_needs_no_other_file(folder):
    with inspected(folder, "train", "test") as found:
        html = page(found, ImageOptions())
    sources = re.findall(r'src="([^"]*)"', html)
    assert sources
    assert all(each.startswith("data:image/jpeg;base64,") for each in sources)
    assert "href=" not in html
    assert "Same file in several splits (leak): 1" in html


def test_names_are_escaped(folder):
    (folder / "train" / "<script>").mkdir()
    (folder / "train" / "<script>" / "x.png").write_bytes(b"rubbish")
    with inspected(folder, "train") as found:
        html = page(found, ImageOptions())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
