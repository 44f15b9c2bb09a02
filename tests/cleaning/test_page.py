"""The page of suspects, to look at; tests/serving/test_review.py has the served one."""

import json
import re

from library.cleaning.page import render_page, write_page
from tests.cleaning.conftest import make_suspects


def read_data(page):
    return json.loads(re.search('id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_page_shows_each_suspect_without_a_server(folder):
    (folder.parent / "report.html").write_text("<nav></nav>")
    path = write_page(folder)
    page = path.read_text()
    assert page.count('<article class="card suspect"') == 3
    assert page.count('loading="lazy"') == 9
    assert 'src="thumbnails/2.jpg"' in page
    assert "blue/<wbr>0 é &lt;b&gt;.png" in page
    assert "5 of 6 neighbors are &lt;red&gt;" in page
    assert "blue → red (3)" in page
    assert "serve --clean --run_dir &#39;a b&#39;" in page
    assert "cross_validate" in page
    # Nothing is loaded but the thumbnails, and nothing can be decided.
    assert "default-src 'none'" in page
    assert "connect-src" not in page
    assert 'data-action="' not in page
    # The report links to it.
    assert 'href="cleaning/index.html">cleaning<' in (folder.parent / "report.html").read_text()


def test_suggestion_that_is_no_other_label_cannot_be_accepted():
    suspects = make_suspects(2)
    object.__setattr__(suspects.suspects[1], "suggestion", [])
    page = render_page(suspects, {"version": "1", "decisions": {}})
    assert page.count('data-action="accept"') == 1
    assert [each["can_accept"] for each in read_data(page)["suspects"]] == [True, False]


def test_page_without_suspects_says_so():
    assert "No label is suspicious." in render_page(make_suspects(0, predictions="out_of_fold"))
