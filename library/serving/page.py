"""The page for trying a model in a browser; it loads nothing from elsewhere."""

import re

from library.figures.html import render, source_hash


def make_page(description: str, max_bytes: int) -> str:
    """Return the page as HTML.

    Args:
        description: One line about the model.
        max_bytes: Largest upload.
    """
    return render("library.serving", "page.html", description=description, max_bytes=max_bytes)


def content_security_policy(page: str, images: str = "data:") -> str:
    """Return the Content-Security-Policy that allows only the page's own scripts and styles.

    Args:
        page: The page as HTML.
        images: Where its images come from.
    """
    hashes = {
        tag: " ".join(
            source_hash(text) for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        f"img-src {images}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
