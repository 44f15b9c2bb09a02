import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from library.explaining.explanation_files import draw_kernels
from library.explaining.explanation_page import page
from library.explaining.grad_cam import GRAD_CAM, HIRES_CAM, OCCLUSION
from tests.explaining.test_explanation_files import make_explanation


class Sources(HTMLParser):
    """Collects what a page would fetch, and images without words."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.wordless = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.fetched += [given[each] for each in ("src", "href") if each in given]
        self.wordless += tag == "img" and not given.get("alt")


def test_the_page_needs_no_other_file_and_every_picture_has_words():
    sources = Sources(page(make_explanation(), "simple", draw_kernels))
    # The picture and two heat maps, a neighbor, the kernels, a layer.
    assert len(sources.fetched) == 6
    assert all(each.startswith("data:image/webp;base64,") for each in sources.fetched)
    assert sources.wordless == 0


def test_names_are_shown_as_they_are_and_harm_nothing():
    text = page(make_explanation("<script>alert(1)</script>\x1b.png"), "a & b", draw_kernels)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b.png" in text
    assert "a &amp; b" in text


def test_it_tells_truth_probabilities_and_neighbors():
    text = page(make_explanation(), "simple", draw_kernels)
    assert "✗ it is dog" in text
    assert re.search(r"<td>cat<td>75\.0 %", text)
    assert "dog 0.875<br>dog/<wbr>7.png" in text
    assert "heat for dog" in text
    assert "2 maps of 4 x 4, 50% of the values 0" in text


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (GRAD_CAM, "Grad-CAM of the layer conv: "),
        (HIRES_CAM, "taken place by place"),
        (OCCLUSION, "this is not Grad-CAM but occlusion"),
    ],
)
def test_it_says_how_heat_was_found(method, words):
    explanation = replace(make_explanation(), method=method, layer="conv", kernels=None)
    assert words in page(explanation, "simple", draw_kernels)
