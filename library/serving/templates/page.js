"use strict";
const element = id => document.getElementById(id);
const maxBytes = Number(element("main").dataset.maxBytes);
let image = null, requests = 0;

function showMessage(text, isError) {
  element("message").textContent = text;
  element("message").classList.toggle("wrong", Boolean(isError));
}

// Classify the image and show the evidence for a class, the most likely one if the name is empty.
async function classify(className) {
  if (!image) return;
  if (image.size > maxBytes) {
    return showMessage(`The image has more than ${maxBytes / 1e6} MB.`, true);
  }
  const request = ++requests;
  showMessage("Classifying…");
  document.body.classList.add("busy");
  let answer, isError = true;
  try {
    const response = await fetch("predict?explain=" + encodeURIComponent(className), {
      method: "POST", body: image, headers: {"Content-Type": "application/octet-stream"}});
    answer = await response.json();
    isError = !response.ok;
  } catch {
    answer = {message: "the server does not answer; is it still running?"};
  }
  if (request !== requests) return;  // The user chose another image meanwhile.
  document.body.classList.remove("busy");
  element("result").hidden = isError;
  if (isError) return showMessage(sentence(answer.message), true);
  showMessage("");
  showAnswer(answer);
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (text.endsWith("?") ? "" : ".");
}

function percent(share) { return (100 * share).toFixed(1) + "\u00a0%"; }

function showAnswer(answer) {
  const best = answer.classes[0], heat = answer.heat;
  const verdict = answer.found ? answer.found.join(", ") || "none of the classes" : answer.class;
  element("verdict").textContent = verdict === best.class
    ? `${verdict}, ${percent(best.probability)}`
    : `${verdict} (most likely: ${best.class}, ${percent(best.probability)})`;
  element("picture").onload = () => {
    const {naturalWidth: width, naturalHeight: height} = element("picture");
    element("stage").classList.toggle("small", width < 160);
    element("stage").style.width = `min(100%, ${28 * width / height}rem)`;
  };
  element("picture").src = answer.picture;
  element("picture").alt = `the image, classified as ${verdict}`;
  element("heat").src = heat.image;
  element("method").textContent = heat.is_empty
    ? `No evidence for ${heat.class}` : `Evidence for ${heat.class} (${heat.method})`;
  const rows = answer.classes.slice(0, 10).map(each => classButton(each, heat.class));
  element("classes").replaceChildren(...rows);
  const more = answer.classes.length - rows.length;
  element("more").textContent = more > 0 ? `… and ${more} more` : "";
}

function classButton(each, explainedClass) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", each.class === explainedClass);
  for (const [className, text] of
       [["bar", ""], ["name", each.class], ["share", percent(each.probability)]]) {
    const part = document.createElement("span");
    part.className = className;
    part.textContent = text;
    if (className === "bar") part.style.width = 100 * each.probability + "%";
    button.append(part);
  }
  button.title = `show the evidence for ${each.class}`;
  button.addEventListener("click", () => classify(each.class));
  item.append(button);
  return item;
}

function take(files) {
  if (!files || !files.length) return;
  image = files[0];
  classify("");
}

element("file").addEventListener("change", () => {
  take(element("file").files);
  element("file").value = "";
});
element("show-heat").addEventListener("change", () => {
  element("heat").hidden = !element("show-heat").checked;
});
document.addEventListener("paste", event => take(event.clipboardData.files));
document.addEventListener("dragover", event => {
  event.preventDefault();
  element("drop").classList.add("over");
});
document.addEventListener("dragleave", () => element("drop").classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  element("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
