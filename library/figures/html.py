"""Pages from Jinja2 templates: escaped, with one stylesheet, and nothing loaded from elsewhere.

A package keeps its templates in its folder `templates/`. They extend `base.html` and import
`macros.html`, which lie beside this module, as does `style.css`, which `base.html` puts inline.
"""

import base64
import functools
import html

import jinja2

from library.errors import printable


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


def data_url(content: bytes, media_type: str) -> str:
    """Return a data: URL of content of a type such as `image/png`."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


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
    environment.filters |= {"percent": _percent, "printable": printable}
    return environment


def _on_one_line(value: object) -> object:
    is_markup = hasattr(value, "__html__")
    return printable(value) if isinstance(value, str) and not is_markup else value


def _percent(share: float, digits: int = 1) -> str:
    """Return a share of 0 to 1 as a percentage, such as `93.6 %`."""
    return f"{100 * share:.{digits}f} %"


# The functions below serve the pages that are not templates yet.
STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --paper: #fbfbfc; --card: #fff;
  --line: #dfe3e8; --good: 42 128 110; --bad: 201 79 60; --bar: 66 118 190; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --paper: #14171c;
  --card: #1c2027; --line: #323945; --good: 79 180 158; --bad: 232 120 100; --bar: 110 160 230; } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem }
p { max-width: 46rem; margin: .4rem 0 } .soft, figcaption, caption { color: var(--soft) }
.soft, figcaption { font-size: .875rem }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .28rem .9rem .28rem 0; text-align: right; vertical-align: baseline;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft) } thead th { white-space: nowrap }
th:first-child, td:first-child, .words td, .words th { text-align: left }
tbody th { font-weight: 400; color: var(--ink); overflow-wrap: anywhere; min-width: 6rem }
.words td { overflow-wrap: anywhere } .words tbody th { min-width: 11rem }
.pairs td:nth-child(2), .pairs th:nth-child(2) { text-align: left }
.classes td { white-space: nowrap }
.classes tbody th { position: sticky; left: 0; background: var(--paper); min-width: 7.5rem;
  max-width: 9rem }
.between { color: var(--soft); white-space: nowrap }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .7rem .9rem }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2; font-weight: 650 }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1rem 2rem; align-items: start }
.pair svg, .pair img { width: 100%; height: auto; max-width: 34rem }
figure { margin: 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem }
.cards figure { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .5rem; overflow-wrap: anywhere; font-size: .8rem; line-height: 1.35 }
.cards figcaption { font-size: inherit }
.cards img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  border-radius: .3rem; margin-bottom: .35rem; background: rgb(128 128 128 / .12) }
.pixelated { image-rendering: pixelated }
.right { color: rgb(var(--good)) } .wrong { color: rgb(var(--bad)) }
.matrix { border-collapse: separate; border-spacing: 2px; font-size: .8rem }
.matrix td, .matrix th { border: 0; padding: .2rem .35rem; text-align: center; min-width: 2.3rem }
.matrix tbody th { text-align: right; min-width: 5rem; max-width: 12rem; position: sticky; left: 0;
  background: var(--paper) }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  max-height: 10rem; overflow: hidden; vertical-align: bottom; padding: .35rem .2rem }
.matrix td { border-radius: .25rem }
.meter { display: inline-block; width: 5rem; height: .55rem; border-radius: .3rem;
  background: rgb(128 128 128 / .2); overflow: hidden }
.meter i { display: block; height: 100%; background: rgb(var(--bar)) }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--soft) }
svg text { fill: currentColor; font: 12px system-ui, sans-serif }
@media (max-width: 30rem) { body { font-size: 15px; padding: 1rem .75rem 3rem }
  .cards { grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)) } h2 { margin-top: 2.2rem } }
@media print { body { max-width: none } details > * { display: block } }
"""
# Nothing but what is in the file itself: not even if a name should get past the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title, *parts):
    """Return a whole page as a str. `parts` are HTML."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{text(title)}</title><style>{STYLE}</style></head><body>",
            *parts,
            "</body></html>\n",
        ]
    )


def text(words):
    """Return any words as HTML: escaped, and what can't be printed as an escape sequence."""
    return html.escape(printable(words))


def file_name(words):
    """Return a file's name as HTML that breaks behind a slash rather than within a word."""
    return text(words).replace("/", "/<wbr>")


def table(head, rows, kind=""):
    """Return a table that scrolls where it is too wide. `rows` are of HTML cells, first a head's.

    `head` are words.
    """
    cells = "".join(f"<th>{text(each)}</th>" for each in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{each}</td>" for each in rest)}</tr>\n'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def tile(words, value, small=""):
    """Return a large number with its name above and a few words below."""
    return (
        f'<div class="tile"><span class="soft">{text(words)}</span><b>{text(value)}</b>'
        f'<span class="soft">{text(small)}</span></div>'
    )


def meter(share):
    """Return a small bar, filled by a share of 0 to 1; nothing for None."""
    if share is None:
        return ""
    return f'<span class="meter"><i style="width:{100 * share:.0f}%"></i></span>'


def folded(summary, content):
    """Return what is shown when asked for."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"
