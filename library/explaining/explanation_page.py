"""An explanation as one HTML page that needs no other file and no network."""

import base64

from library.explaining.grad_cam import GRAD_CAM, HIRES_CAM, OCCLUSION
from library.explaining.overlays import encode_image, enlarge, overlay_heatmap, to_color
from library.figures.html import file_name, text

_SHOWN_CLASSES = 5
_LEAST_EDGE = 224
_METHODS = {
    GRAD_CAM: "Heat is Grad-CAM of the layer {layer}: its maps, each weighed by how much the "
    "class's score grows with it.",
    HIRES_CAM: "Heat is Grad-CAM of the layer {layer}, taken place by place (HiResCAM): behind it "
    "each place has weights of its own, so an average over places would mislead.",
    OCCLUSION: "No layer with places can be reached in this network, so this is not Grad-CAM but "
    "occlusion: parts of the picture are covered in turn, and heat is how much the score falls.",
}
_STYLE = """
:root { color-scheme: light dark; --text: #1d2129; --soft: #596273; --page: #f4f5f7;
        --card: #fff; --line: #dfe2e8; --bar: #3a6ea5; --right: #1a7f4b; --wrong: #b3261e }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ec; --soft: #9aa4b4; --page: #14161a;
        --card: #1d2026; --line: #323741; --bar: #6fa3d8; --right: #5cc48d; --wrong: #f2867e } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
h3 { font-size: 1rem; margin: 0 0 .75rem; overflow-wrap: anywhere }
p { margin: .5rem 0; max-width: 46rem } .soft, figcaption { color: var(--soft) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem;
        margin: 1rem 0 }
.answer { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem }
.row { display: flex; flex-wrap: wrap; gap: .75rem }
figure { margin: 0 } figcaption { font-size: .8rem; overflow-wrap: anywhere }
.large { width: 10rem } .large img { width: 10rem; height: 10rem; object-fit: contain }
.small { width: 7rem } .small img { width: 7rem; height: 7rem; object-fit: contain }
img { display: block; height: auto; border-radius: 6px; max-width: 100%;
      background: var(--line) }
.pixels { image-rendering: pixelated }
table { border-collapse: collapse; flex: 1 1 15rem; align-self: start; max-width: 30rem }
td { padding: .15rem 0 } td + td { text-align: right; padding-left: .75rem;
     font-variant-numeric: tabular-nums } td:first-child { overflow-wrap: anywhere }
.track { background: var(--line); border-radius: 3px; height: 6px; margin-bottom: .25rem }
.track div { background: var(--bar); border-radius: 3px; height: 6px; min-width: 1px }
.right { color: var(--right) } .wrong { color: var(--wrong) }
h4 { font-size: .8rem; font-weight: 600; color: var(--soft); margin: 1rem 0 .4rem }
.maps { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)) }
.maps .card { margin: 0 } .maps img { width: 100% } .maps b { display: block }
"""


def page(explanation, subject, draw_kernels):
    """Return the page, as a str. `subject` says what network it is about."""
    method = _METHODS[explanation.method].format(layer=explanation.layer)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">",
        f"<title>Why it answers so</title><style>{_STYLE}</style>",
        f"<h1>Why it answers so</h1><p class=soft>{text(subject)}</p><p>{text(method)}</p>",
        *(part for answer in explanation.answers for part in _answer(answer)),
        *_kernels(explanation.kernels, draw_kernels),
        *_layers(explanation),
        "</html>\n",
    ]
    return "\n".join(parts)


def _answer(answer):
    picture = answer.picture
    verdict = ""
    if picture.truths is not None:
        kind, mark = ("right", "✓") if answer.is_right else ("wrong", "✗")
        verdict = f" <span class={kind}>{mark} it is {text(_list(picture.truths))}</span>"
    yield f"<section class=card><h3>{text(picture.name)}{verdict}</h3><div class=answer>"
    plain = enlarge(to_color(picture.pixels), _LEAST_EDGE)
    yield "<div class=row>" + _figure("large", plain, "as the network sees it")
    for name, heat in answer.heats.items():
        words = f"heat for {name}" if heat.any() else f"nothing speaks for {name}"
        yield _figure("large", overlay_heatmap(plain, heat), words)
    yield "</div><table>"
    for name, probability in answer.ranking[:_SHOWN_CLASSES]:
        yield f"<tr><td>{text(name)}<td>{100 * probability:.1f} %"
        yield f'<tr><td colspan=2><div class=track><div style="width: {100 * probability:.2f}%">'
        yield "</div></div>"
    yield "</table></div>"
    if answer.nearest:
        yield "<h4>Most alike among the training images, by the cosine of their embeddings</h4>"
        yield "<div class=row>"
        for each, names in answer.nearest:
            caption = f"{_list(names)} {each.similarity:.3f}"
            yield _figure("small", to_color(each.pixels), caption, each.name)
        yield "</div>"
    yield "</section>"


def _kernels(kernels, draw_kernels):
    if kernels is None:
        return
    height, width, inputs, outputs = kernels.shape
    yield "<h2>The first layer's kernels</h2>"
    yield f"<p class=soft>{outputs} kernels of {height} x {width} x {inputs}, each "
    yield "scaled to its own range.</p>"
    yield f"<div class=card>{_image(draw_kernels(kernels), 'kernels of the first layer', True)}"
    yield "</div>"


def _layers(explanation):
    name = explanation.answers[0].picture.name
    yield f"<h2>Every layer, for {text(name)}</h2>"
    yield "<p class=soft>In the order in which they run. Each map is scaled to its own range: dark "
    yield "is its lowest value, light its highest.</p><div class=maps>"
    for each in explanation.layers:
        drawing = each.drawing.copy()
        drawing.thumbnail((448, 448))
        yield f"<figure class=card>{_image(drawing, f'what {each.name} gives', True)}"
        yield f"<figcaption><b>{text(each.name)}</b> {text(each.words)}</figcaption></figure>"
    yield "</div>"


def _figure(kind, image, caption, name=""):
    drawn = _image(image, caption, kind == "small")
    words = f"{text(caption)}<br>{file_name(name)}"
    return f"<figure class={kind}>{drawn}<figcaption>{words}</figcaption></figure>"


def _image(image, words, is_pixelated):
    # Without loss where each pixel is to be seen: small pictures are no larger so.
    options = {"lossless": True} if max(image.size) <= 64 else {"quality": 82}
    content = base64.b64encode(encode_image(image, "WEBP", **options)).decode()
    kind = " class=pixels" if is_pixelated else ""
    return (
        f'<img{kind} width={image.width} height={image.height} alt="{text(words)}" '
        f'src="data:image/webp;base64,{content}">'
    )


def _list(names):
    return ", ".join(names) or "none of the classes"
