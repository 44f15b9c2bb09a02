"""Pages from Jinja2 templates: escaped, with one stylesheet, and nothing loaded from elsewhere.

A package keeps its templates in its folder `templates/`. They extend `base.html` and import
`macros.html`, which lie beside this module, as does `style.css`, which `base.html` puts inline.
"""

import base64
import functools
import hashlib
import html
import re
from importlib.resources import files
from os.path import relpath
from pathlib import Path
from urllib.parse import quote

import jinja2

from library.errors import printable
from library.files import write_file

# The pages that a run's folder may hold.
_RUN_PAGES = (
    *("report.html", "cross_validation.html", "evaluation/*.html"),
    *("explain/explain.html", "cleaning/index.html"),
)
_LINKS = re.compile("<nav>[^\\n]*</nav>")


def render(package: str, template: str, **values: object) -> str:
    """Render a template of a package.

    What a template inserts is shown on one line, control characters escaped; in `.html` and `.svg`
    templates it is escaped as HTML, too. Macros in HTML, and what a template marks as `safe`, are
    inserted as they are.

    Args:
        package: Dotted name of the package whose folder `templates/` holds the template, such as
            `library.reporting`. Shared templates are found from any package.
        template: File name of the template.
        **values: Variables of the template. A template that uses another one raises an error.

    Returns:
        The page, or other text.
    """
    return _environment(package).get_template(template).render(values)


def link_pages(run_dir: str | Path) -> None:
    """Link the pages in a run's folder to one another; call it when one of them was written."""
    run_dir = Path(run_dir)
    pages = [page for pattern in _RUN_PAGES for page in sorted(run_dir.glob(pattern))]
    for page in pages:
        links = " · ".join(_link(other, page, run_dir) for other in pages)
        parts = _LINKS.split(page.read_text(encoding="utf-8"), maxsplit=1)
        write_file(page, f"<nav>{links}</nav>".join(parts))


def read_script(package: str, name: str) -> str:
    """Return a script of a package, for the variable `script`, which base.html puts inline."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """Return what a Content-Security-Policy names an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_url(content: bytes, media_type: str) -> str:
    """Return a data: URL of content of a type such as `image/png`."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def inline_svg(content: bytes) -> str:
    """Return the SVG element of a file's bytes: the XML prolog before it belongs to files."""
    text = content.decode()
    return text[text.index("<svg") :]


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    loaders = [jinja2.PackageLoader(each) for each in (package, "library.figures")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=jinja2.select_autoescape(("html", "svg")),
        undefined=jinja2.StrictUndefined,
        finalize=_on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": _percent, "printable": printable, "source_hash": source_hash}
    return environment


def _link(page: Path, origin: Path, run_dir: Path) -> str:
    """Return a link from one page to another, or the page's name if they are the same."""
    name = page.relative_to(run_dir).with_suffix("").as_posix()
    name = name.removesuffix("/explain").removesuffix("/index")
    name = html.escape(printable(name))
    url = quote(Path(relpath(page, origin.parent)).as_posix())
    return f"<b>{name}</b>" if page == origin else f'<a href="{url}">{name}</a>'


def _on_one_line(value: object) -> object:
    is_markup = hasattr(value, "__html__")
    return printable(value) if isinstance(value, str) and not is_markup else value


def _percent(share: float, digits: int = 1) -> str:
    """Return a share of 0 to 1 as a percentage, such as `93.6 %`."""
    return f"{100 * share:.{digits}f} %"
