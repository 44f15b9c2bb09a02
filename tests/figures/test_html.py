"""Pages that the templates make, whatever the names in them hold."""

from html.parser import HTMLParser

import jinja2
import pytest

from library.figures.html import data_url, render


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two templates of its own."""
    templates = tmp_path / "some_leaf" / "templates"
    templates.mkdir(parents=True)
    (tmp_path / "some_leaf" / "__init__.py").touch()
    (templates / "page.html").write_text(
        '{% extends "base.html" %}{% from "macros.html" import image, meter, path, table %}'
        "{% block title %}{{ name }}{% endblock %}"
        "{% block body %}{{ table([name], [[name, 1.5]]) }}{{ meter(share) }}{{ path(name) }}"
        '{{ image("data:,", name) }}{% endblock %}'
    )
    (templates / "card.md").write_text("# {{ name }}\n{{ 0.936 | percent }}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "some_leaf"


class Tags(HTMLParser):
    """Collects the tags of a page, and what they would load."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.loaded = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href")]


def test_render_escapes_every_value(package):
    hostile = "<script>alert('\"&\n\u202e')</script>"
    page = render(package, "page.html", name=hostile, share=0.25)
    assert "script" not in Tags(page).tags
    assert page.count("&lt;script&gt;alert(&#39;&#34;&amp;\\n\\u202e&#39;)") == 5
    assert "&lt;/<wbr>script&gt;" in page
    assert "width:25.0%" in page
    assert "meter" not in render(package, "page.html", name="", share=None).split("<body>")[1]


def test_render_escapes_control_characters_in_markdown(package):
    assert render(package, "card.md", name="<a>\n#") == "# <a>\\n#\n93.6 %\n"


def test_render_refuses_missing_values(package):
    with pytest.raises(jinja2.UndefinedError, match="share"):
        render(package, "page.html", name="")


def test_pages_load_nothing_and_fit_any_screen(package):
    page = render(package, "page.html", name="", share=0)
    assert "default-src 'none'" in page
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page
    assert "://" not in page
    assert all(each.startswith("data:") for each in Tags(page).loaded)


def test_data_url():
    assert data_url(b"\x00\xff", "image/png") == "data:image/png;base64,AP8="
