"""The report as a browser shows it."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from library.evaluation.evaluate import EvaluationResult
from library.evaluation.metrics import MetricOptions, measure
from library.evaluation.predictions import Predictions
from library.models.scores import to_probabilities
from library.reporting.report import MISTAKES, Subject, make_report

ROW = {
    "epoch": 1.0,
    "loss": 0.9,
    "accuracy": 0.5,
    "validation_loss": 0.8,
    "validation_accuracy": 0.6,
}
SETTINGS = [
    ("train_epochs", "3", "command line"),
    ("batch_size", "64", "project.yaml:24 (set sample)"),
    ("random_seed", "0", "default"),
]
# Shows a page on a narrow screen, and tells its width and how much it asked for from outside.
PROBE = """<iframe width=390 height=800 style="border:0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const asked = frame.contentWindow.performance.getEntriesByType("resource");
  const outside = asked.filter(each => !each.name.startsWith("data:"));
  document.title = [frame.contentDocument.documentElement.scrollWidth, outside.length].join();
};
frame.srcdoc = PAGE;
</script>"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make(
    images=60, classes=3, *, multi_label=False, right=False, edge=8, cross_fitted=False, **changes
):
    random = np.random.default_rng(0)
    names = tuple(f"<i>class & {n}</i>" for n in range(classes))
    labels = random.integers(0, classes, images)
    truth = np.eye(classes, dtype=np.float32)[labels]
    scores = (random.normal(size=(images, classes)) + (1 + 9 * right) * truth).astype(np.float32)
    probabilities = np.asarray(to_probabilities(scores, multi_label=multi_label))
    found = Predictions(
        scores,
        probabilities,
        truth if multi_label else labels,
        tuple(f"<img src=x onerror=alert({n})>.png" for n in range(images)),
        multi_label,
    )
    losses = -np.log(probabilities[np.arange(images), labels])
    values = {"loss": losses, "accuracy": found.classes == labels}
    measures = measure(found, names, values, MetricOptions(bootstrap_samples=50))
    judgment = EvaluationResult(
        found,
        losses,
        {
            **measures,
            "temperature": 1.2,
            "calibrated_ece": 0.1,
            "calibrated_loss": 0.7,
            "cross_fitted": cross_fitted,
        },
    )
    counts = tuple(np.bincount(labels, minlength=classes).tolist())
    split = SimpleNamespace(name="test", examples=images, class_counts=counts, rejected_count=2)
    given = {
        "folder": "out/run/best",
        "name": "test",
        "classes": names,
        "metrics": {"epoch": 2},
        "network": "simple: 100 parameters",
        "settings": {"project.yaml": SETTINGS},
        "splits": (split, SimpleNamespace(**{**vars(split), "name": "train"})),
        "rows": [ROW, {**ROW, "epoch": 2.0}],
    }
    shown = judgment.worst_mistakes(MISTAKES)
    pixels = random.integers(0, 256, (len(shown), edge, edge, 3), np.uint8)
    return make_report(Subject(**{**given, **changes}), judgment, pixels)


def open_in_browser(path, *options):
    """Give (the page as the browser has made it, what its console said)."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--v=0", "--virtual-time-budget=3000", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
def test_a_browser_shows_it_without_an_error_or_a_request(tmp_path):
    path, probe = tmp_path / "report.html", tmp_path / "probe.html"
    path.write_text(make())
    page, console = open_in_browser(path, "--dump-dom")
    assert not console
    assert page.count("<figure") > 10
    assert "% right on test" in page
    assert "onerror=alert" not in re.sub(r"&lt;img src=x onerror=alert", "", page)

    # On a phone nothing but tables is wider than the screen. The page itself may run no script.
    probe.write_text(PROBE.replace("PAGE", json.dumps(path.read_text()).replace("</", "<\\/")))
    page, _ = open_in_browser(probe, "--dump-dom")
    width, requests = re.search(r"<title>(\d+),(\d+)</title>", page).groups()
    assert int(width) <= 390
    assert int(requests) == 0


def test_everything_is_on_the_page_and_every_name_is_escaped():
    page = make()
    for heading in (
        "How training went",
        "All measures",
        "Classes",
        "Confusion matrix",
        "Worst mistakes",
        "Calibration",
        "Data",
        "Settings of the training",
        "Environment",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<i>class" not in page
    assert "&lt;i&gt;class &amp; 2&lt;/i&gt;" in page
    assert "&lt;img src=x onerror=alert(" in page
    assert "project.yaml:24 (set sample)" in page
    assert "1 more, at their defaults" in page
    assert "best: epoch 2" in page
    assert "in train" in page
    assert "temperature <b>1.200</b>" in page
    assert "very images" not in page
    assert "the very images that it was fitted on" in make(cross_fitted=True)
    assert len(re.findall('src="data:image/', page)) == page.count("<figcaption>") > 10


def test_without_history_and_mistakes_the_rest_is_there():
    page = make(images=2, classes=2, rows=[], settings={}, right=True)
    assert "How training went" not in page
    assert "None: every guess is right." in page


def test_several_labels_have_no_confusion_matrix_but_all_their_answers():
    page = make(multi_label=True)
    assert "Confusion matrix" not in page
    assert "exact match" in page
    exact = re.search(r"exact match</span><b>([\d.]+)<", page)[1]
    assert f"<h1>{float(exact):.1%} right on test</h1>" in page
    assert re.search(r'class="wrong">[^<]*class[^<]*, [^<]*class', page)


@pytest.mark.slow
def test_many_images_and_classes_stay_small():
    page = make(images=3000, classes=100, edge=224)
    assert page.count("<figcaption>") == MISTAKES
    assert len(page.encode()) < 2_000_000
