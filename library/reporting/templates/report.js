"use strict";
// Precision and recall at the threshold that the slider sets, from counts that the page holds.
const curves = JSON.parse(document.getElementById("threshold-data").textContent);
const chosen = document.getElementById("threshold-class");
const slider = document.getElementById("threshold");
const SIZE = 300;

const percent = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)} %` : "undefined";
const show = (id, text) => { document.getElementById(id).textContent = text; };

// The point of a threshold, and null where nothing is predicted.
function point(curve, n) {
  const recall = curve.correct[n] / curve.positives;
  const precision = curve.correct[n] / curve.predicted[n];
  return curve.predicted[n] ? [SIZE * recall, SIZE * (1 - precision)] : null;
}

function draw() {
  const curve = curves[chosen.value];
  const n = Number(slider.value);
  const points = curve.predicted.map((_, each) => point(curve, each)).filter(each => each);
  const path = points.map(each => each.map(value => value.toFixed(1)).join(" ")).join(" L");
  document.getElementById("threshold-path").setAttribute("d", path ? `M${path}` : "");
  const marker = document.getElementById("threshold-marker");
  const at = point(curve, n);
  marker.style.display = at ? "" : "none";
  if (at) {
    marker.setAttribute("cx", at[0].toFixed(1));
    marker.setAttribute("cy", at[1].toFixed(1));
  }
  const correct = curve.correct[n], predicted = curve.predicted[n];
  show("threshold-value", (n / 100).toFixed(2));
  show("threshold-precision", percent(correct, predicted));
  show("threshold-precision-counts", `${correct} of ${predicted} predictions are correct`);
  show("threshold-recall", percent(correct, curve.positives));
  show("threshold-recall-counts", curve.isAnswer
    ? `${correct} of ${curve.positives} images get the correct answer`
    : `${correct} of ${curve.positives} images of the class are found`);
  show("threshold-note", curve.isAnswer
    ? `Below the threshold the answer is "unknown", as with --threshold: ` +
      `for ${curve.positives - predicted} of ${curve.positives} images.`
    : "Each image whose probability of the class reaches the threshold is predicted to have it.");
}

chosen.addEventListener("change", draw);
slider.addEventListener("input", draw);
draw();
