"""The page to try a model with: one HTML text, which fetches nothing from elsewhere."""

import base64
import hashlib
import html
import re

from library.errors import printable

_STYLE = """
:root { color-scheme: light dark; --text: #1d2129; --soft: #566070; --page: #f4f5f7; --card: #fff;
        --line: #d6dae2; --bar: #c9dcf0; --main: #2f6299; --wrong: #b3261e }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #a0aaba; --page: #131519;
        --card: #1c1f25; --line: #363b46; --bar: #2b4a6b; --main: #82b4e8; --wrong: #f2867e } }
* { box-sizing: border-box }
[hidden] { display: none !important }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: var(--text);
       background: var(--page) }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 } h2 { font-size: 1.3rem; margin: 0 0 .75rem }
h2 { overflow-wrap: anywhere } p { margin: .25rem 0 1rem } .soft { color: var(--soft) }
#drop { display: block; border: 2px dashed var(--line); border-radius: 14px; padding: 2rem 1rem;
        text-align: center; background: var(--card); cursor: pointer; position: relative }
#drop:hover, #drop.over, #drop:focus-within { border-color: var(--main) }
#drop:focus-within { outline: 3px solid var(--main); outline-offset: 2px }
#drop b { color: var(--main) }
#file { position: absolute; inset: 0; opacity: 0; width: 100%; height: 100%; cursor: pointer }
#message { min-height: 1.5rem; margin: .75rem 0 } #message.wrong { color: var(--wrong) }
#result { display: flex; flex-wrap: wrap; gap: 1.5rem; background: var(--card); padding: 1.25rem;
          border: 1px solid var(--line); border-radius: 14px; transition: opacity .15s }
.busy #result { opacity: .5 }
figure { margin: 0; flex: 1 1 18rem; min-width: 0 }
#stage { position: relative; border-radius: 8px; overflow: hidden; background: var(--line) }
#stage img { display: block; width: 100% }
#stage.small #picture { image-rendering: pixelated }
#heat { position: absolute; inset: 0; height: 100% }
figcaption { margin-top: .5rem; font-size: .9rem }
figcaption label { font-weight: 600; cursor: pointer }
#answer { flex: 1 1 18rem; min-width: 0 }
ol { list-style: none; margin: 0; padding: 0 }
#classes button { all: unset; box-sizing: border-box; display: flex; gap: 1rem; width: 100%;
    position: relative; cursor: pointer; padding: .35rem .6rem; margin-bottom: .3rem;
    border-radius: 6px; border: 1px solid transparent }
#classes button:hover, #classes [aria-pressed=true] { border-color: var(--main) }
#classes button:focus-visible { outline: 3px solid var(--main); outline-offset: 1px }
#classes .bar { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: 5px }
#classes .name { position: relative; flex: 1; overflow-wrap: anywhere }
#classes .share { position: relative; font-variant-numeric: tabular-nums }
@media (max-width: 30rem) { main { padding-top: 1rem } #drop { padding: 1.25rem 1rem } }
@media (prefers-reduced-motion: reduce) { * { transition: none !important } }
"""
_SCRIPT = """
"use strict";
const at = id => document.getElementById(id);
const limit = Number(document.body.dataset.bytes);
let picture = null, turn = 0;

function say(text, isWrong) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", Boolean(isWrong));
}

async function look(wanted) {
  if (!picture) return;
  if (picture.size > limit) return say(`The picture has more than ${limit / 1e6} MB.`, true);
  const mine = ++turn;
  say("Looking\\u2026");
  document.body.classList.add("busy");
  let said, isWrong = true;
  try {
    const answer = await fetch("predict?explain=" + encodeURIComponent(wanted), {
      method: "POST", body: picture, headers: {"Content-Type": "application/octet-stream"}});
    said = await answer.json();
    isWrong = !answer.ok;
  } catch {
    said = {message: "the server does not answer: is it still running?"};
  }
  if (mine !== turn) return;  // Another picture came meanwhile.
  document.body.classList.remove("busy");
  if (isWrong) { at("result").hidden = true; return say(sentence(said.message), true); }
  say("");
  show(said);
}

function sentence(text) { return text[0].toUpperCase() + text.slice(1) + "."; }

function percent(share) { return (100 * share).toFixed(1) + "\\u00a0%"; }

function show(said) {
  const best = said.classes[0];
  const verdict = said.found ? said.found.join(", ") || "none of the classes" : said.class;
  at("verdict").textContent = verdict === best.class ? `${verdict}, ${percent(best.probability)}`
    : `${verdict} (likeliest: ${best.class}, ${percent(best.probability)})`;
  at("picture").onload = () => {
    const {naturalWidth: width, naturalHeight: height} = at("picture");
    at("stage").classList.toggle("small", width < 160);
    at("stage").style.width = `min(100%, ${28 * width / height}rem)`;
  };
  at("picture").src = said.picture;
  at("picture").alt = `the picture, ${verdict} by the network's judgment`;
  at("heat").src = said.heat.image;
  at("method").textContent = said.heat.is_empty ? `Nothing speaks for ${said.heat.class}.`
    : `What speaks for ${said.heat.class}, by ${said.heat.method}.`;
  at("classes").replaceChildren(...said.classes.slice(0, 10).map(each => line(each, said.heat)));
  const more = said.classes.length - 10;
  at("more").textContent = more > 0 ? `\\u2026 and ${more} more` : "";
  at("result").hidden = false;
}

function line(each, heat) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", each.class === heat.class);
  for (const [kind, text] of
       [["bar", ""], ["name", each.class], ["share", percent(each.probability)]]) {
    const part = document.createElement("span");
    part.className = kind;
    part.textContent = text;
    if (kind === "bar") part.style.width = 100 * each.probability + "%";
    button.append(part);
  }
  button.title = `show what speaks for ${each.class}`;
  button.addEventListener("click", () => look(each.class));
  item.append(button);
  return item;
}

function take(files) {
  if (!files || !files.length) return;
  picture = files[0];
  look("");
}

at("file").addEventListener("change", () => { take(at("file").files); at("file").value = ""; });
at("show").addEventListener("change", () => { at("heat").hidden = !at("show").checked; });
document.addEventListener("paste", event => take(event.clipboardData.files));
document.addEventListener("dragover", event => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
"""
_BODY = """<main>
<h1>What is in the picture?</h1>
<p class=soft>{subject}</p>
<label id=drop for=file><input id=file type=file accept="image/*">
<b>Choose a picture</b>, drop one here, or paste it</label>
<p id=message role=status></p>
<section id=result aria-label="Answer" hidden>
<figure><div id=stage><img id=picture alt=""><img id=heat alt=""></div>
<figcaption><label><input id=show type=checkbox checked> Heat</label>
<span id=method class=soft></span></figcaption></figure>
<div id=answer><h2 id=verdict></h2><ol id=classes></ol><p id=more class=soft></p></div>
</section>
<noscript>This page needs JavaScript; without it, POST an image to <code>/predict</code>.</noscript>
</main>"""


def make_page(subject, most_bytes):
    """Return page, as a str. `subject` says what network answers, `most_bytes` limits uploads."""
    body = _BODY.format(subject=html.escape(printable(subject)))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<link rel=icon href="data:,"><title>What is in the picture?</title>'
        f"<style>{_STYLE}</style></head><body data-bytes={most_bytes}>{body}"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def policy_of(page):
    """Return the Content-Security-Policy that lets a page run its own scripts and styles only."""
    allowed = {
        kind: " ".join(
            f"'sha256-{_hash(text)}'"
            for text in re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        )
        for kind in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
