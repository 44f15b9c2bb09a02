"""The report: what is on the page, and when commands write it."""

import base64
import csv
import html
import io
import json
import os
import platform
import re
import shutil
import subprocess
from types import SimpleNamespace
from urllib.parse import unquote

import keras
import numpy as np
import pytest
from PIL import Image

import run
from library.dataset.splits import read_splits
from library.errors import run_main
from library.evaluation.evaluate import EvaluationResult
from library.evaluation.metrics import EvaluationOptions, compute_metrics
from library.evaluation.predictions import Predictions
from library.figures.html import link_pages, source_hash
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.reporting import mistakes, report
from library.reporting.charts import (
    confused_pairs,
    draw_confusion_matrix,
    make_confusion_chart,
    make_thumbnail,
)
from library.reporting.mistakes import (
    MAX_CORRECT,
    MAX_MISTAKES,
    make_mistake_table,
    read_images,
    sample_correct,
    worst_mistakes,
)
from library.reporting.report import (
    Report,
    describe_environment,
    hash_sources,
    is_about,
    is_current,
    render_report,
)
from library.reporting.threshold_curves import MAX_CLASSES, make_threshold_curves
from project.inputs import EvaluationPipeline

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
# Shows a page on a narrow screen, and tells its width and how much it asked for from outside; then
# sorts and filters the table of mistakes.
PROBE = """<iframe width=390 height=800 style="border:0"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const asked = frame.contentWindow.performance.getEntriesByType("resource");
  const outside = asked.filter(each => !each.name.startsWith("data:"));
  const page = frame.contentDocument;
  const table = page.getElementById("mistakes");
  const texts = column => [...table.tBodies[0].rows].filter(each => !each.hidden)
    .map(row => row.cells[column].textContent);
  const heading = table.tHead.rows[0].cells[5];
  const found = {width: page.documentElement.scrollWidth, outside: outside.length, sorted: []};
  for (const click of [0, 1, 1]) {
    if (click) heading.querySelector("button").click();
    found.sorted.push([heading.getAttribute("aria-sort"), texts(5)]);
  }
  const choice = page.querySelector("[data-filters] select");
  choice.selectedIndex = 2;
  choice.dispatchEvent(new Event("input", {bubbles: true}));
  found.option = choice.value;
  found.filtered = texts(1);
  found.pictures = page.querySelectorAll("[data-pictures-of] > :not([hidden])").length;
  found.count = page.querySelector("[data-filters] output").textContent;
  document.title = JSON.stringify(found);
};
frame.srcdoc = PAGE;
</script>"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make_predictions(labels, scores, names=(), *, multi_label=False):
    names = names or tuple(f"{number}.png" for number in range(len(labels)))
    return Predictions(scores, labels, names, multi_label)


def make_page(
    images=60, classes=3, *, multi_label=False, correct=False, edge=8, cross_fitted=False, **changes
):
    random = np.random.default_rng(0)
    class_names = tuple(f"<i>class & {n}</i>" for n in range(classes))
    labels = random.integers(0, classes, images)
    truth = np.eye(classes, dtype=np.float32)[labels]
    scores = (random.normal(size=(images, classes)) + (1 + 9 * correct) * truth).astype(np.float32)
    names = tuple(f"<img src=x onerror=alert({n})>.png" for n in range(images))
    found = make_predictions(
        truth if multi_label else labels, scores, names, multi_label=multi_label
    )
    losses = -np.log(found.probabilities()[np.arange(images), labels])
    values = {"loss": losses, "accuracy": found.classes == labels}
    metrics = {
        **compute_metrics(found, class_names, values, EvaluationOptions(5, 50)),
        "temperature": 1.2,
        "calibrated_ece": 0.1,
        "calibrated_loss": 0.7,
        "cross_fitted": cross_fitted,
    }
    result = EvaluationResult(None, None, found, losses, metrics)
    counts = tuple(np.bincount(labels, minlength=classes).tolist())
    split = SimpleNamespace(name="test", examples=images, class_counts=counts, rejected_count=2)
    mistakes = len(worst_mistakes(result.predictions, result.losses))
    values = {
        "title": "out/run/best, epoch 2",
        "split": "test",
        "classes": class_names,
        "network": "simple: 100 parameters",
        "result": result,
        "mistake_images": random.integers(0, 256, (mistakes, edge, edge, 3), np.uint8),
        "correct_images": random.integers(
            0, 256, (len(sample_correct(result.predictions)), edge, edge, 3), np.uint8
        ),
        "splits": (split, SimpleNamespace(**{**vars(split), "name": "train"})),
        "history": [ROW, {**ROW, "epoch": 2.0}],
        "epoch": 2,
        "settings": {"project.yaml": SETTINGS},
    }
    return render_report(Report(**{**values, **changes}))


def test_page_says_which_classes_have_intervals(monkeypatch):
    assert "Intervals: of the" not in make_page()
    monkeypatch.setattr("library.evaluation.class_table.MAX_INTERVAL_CLASSES", 2)
    page = make_page()
    assert "Intervals: of the 2 classes" in page
    assert page.count('<td class="interval"></td>') == 1


def open_in_browser(path, *options):
    """Return the page as the browser has made it, and what its console said."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--v=0", "--virtual-time-budget=3000", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
def test_report_in_a_browser(tmp_path):
    path, probe = tmp_path / "report.html", tmp_path / "probe.html"
    path.write_text(make_page())
    page, console = open_in_browser(path, "--dump-dom")
    assert not console
    # The page's own script has filled in what belongs to the slider's threshold.
    assert re.search(r'id="threshold-precision">\d+\.\d %<', page)
    assert re.search(r'id="threshold-path"[^>]* d="M[\d.]+ ', page)
    assert page.count("<figure") > 10
    assert "% correct on the test split" in page
    assert "onerror=alert" not in re.sub(r"&lt;img src=x onerror=alert", "", page)

    # On a phone nothing but tables is wider than the screen.
    probe.write_text(PROBE.replace("PAGE", json.dumps(path.read_text()).replace("</", "<\\/")))
    page, _ = open_in_browser(probe, "--dump-dom")
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", page)[1]))
    assert found["width"] <= 390
    assert found["outside"] == 0
    (before, worst), (then, least), (again, last) = found["sorted"]
    assert (before, then, again) == ("descending", "ascending", "descending")
    assert [float(each) for each in worst] == sorted(map(float, worst), reverse=True)
    assert least == worst[::-1]
    assert last == worst
    assert found["option"] == "<i>class & 1</i>"
    assert {*found["filtered"]} == {found["option"]}
    assert 0 < len(found["filtered"]) == found["pictures"] < len(worst)
    assert found["count"] == f"{len(found['filtered'])} of {len(worst)}"


def test_report_shows_everything_escaped():
    page = make_page(scope=("first 60 of <100>",))
    for heading in (
        "Training curves",
        "Metrics",
        "Classes",
        "Confusion matrix",
        "Precision, recall and thresholds",
        "Worst mistakes",
        "Correct predictions",
        "Calibration",
        "Data",
        "Training settings",
        "Environment",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<i>class" not in page
    assert "&lt;i&gt;class &amp; 2&lt;/i&gt;" in page
    assert "&lt;img src=x onerror=alert(" in page
    assert "first 60 of &lt;100&gt;" in page
    assert "project.yaml:24 (set sample)" in page
    assert "1 more, at their defaults" in page
    assert "best: epoch 2" in page
    assert "in train" in page
    assert len(re.findall('src="data:image/', page)) == page.count("<figcaption>") > 10


def test_report_says_how_the_temperature_was_fitted():
    page, cross_fitted = make_page(), make_page(cross_fitted=True)
    assert "temperature <b>1.200</b>" in page
    assert "halves" in cross_fitted
    assert "halves" not in page


def test_report_without_history_and_mistakes():
    page = make_page(images=2, classes=2, history=[], settings={}, correct=True)
    assert "Training curves" not in page
    assert "Training settings" not in page
    assert "every prediction is correct" in page


def test_multi_label_report():
    page = make_page(multi_label=True)
    assert "Confusion matrix" not in page
    exact = re.search(r"exact match</span><b>([\d.]+)<", page)[1]
    assert f"<h1>{100 * float(exact):.1f} % correct on the test split</h1>" in page
    assert re.search(r'class="wrong">[^<]*class[^<]*, [^<]*class', page)


@pytest.mark.slow
def test_report_of_many_images_and_classes_is_small():
    page = make_page(images=3000, classes=100, edge=224)
    assert page.count("<figcaption>") == MAX_MISTAKES + MAX_CORRECT
    assert len(page.encode()) < 2_000_000


def test_reliability_diagram():
    bin = {"from": 0.8, "to": 0.9, "guesses": 40, "confidence": 0.86, "accuracy": 0.5}
    metrics = {"reliability": [bin, {**bin, "guesses": 10, "accuracy": 1.0}]}
    found = make_predictions(np.zeros(1, int), np.ones((1, 2), np.float32))
    metrics = {
        **compute_metrics(found, "ab", {"accuracy": np.ones(1)}, EvaluationOptions(5, 50)),
        **metrics,
    }
    result = EvaluationResult(None, None, found, np.zeros(1), metrics)
    split = SimpleNamespace(name="test", examples=1, class_counts=(1, 0), rejected_count=None)
    page = render_report(
        Report("", "test", "ab", "", result, [], [np.zeros((8, 8, 1), np.uint8)], [split])
    )
    assert "40 predictions, confidence 80 % to 90 %: 50.0 % correct" in page
    bars = [float(each) for each in re.findall(r'<rect[^>]* height="([\d.]+)"', page)]
    # For each bin its accuracy and, below, its share of the predictions.
    assert bars[2] == 2 * bars[0]
    assert bars[1] == 4 * bars[3]


CELLS = np.array([[0, 0, 5], [0, 2, 1], [1, 1, 2], [1, 2, 8]])


def test_confused_pairs():
    assert confused_pairs(CELLS) == [(1, 2, 8, 0.8), (0, 2, 1, 1 / 6)]
    assert confused_pairs(CELLS[:1]) == []


@pytest.mark.parametrize("classes", [3, 100, 2000])
def test_confusion_chart_by_number_of_classes(classes):
    labels = np.array([1, 1, 1])
    scores = np.eye(classes, dtype=np.float32)[[2, 2, 1]]
    names = [f"class {n}" for n in range(classes)]
    chart = make_confusion_chart(make_predictions(labels, scores), names)
    assert chart.pairs == [("class 1", "class 2", "2", "66.7 %")]
    assert (chart.matrix is not None) == (classes == 3)
    assert (chart.image_url is not None) == (classes == 100)
    if chart.matrix:
        assert chart.matrix == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_confusion_image_shows_mistakes_in_red():
    counts = 9 * np.eye(100, dtype=int)
    counts[3, 70] = 4
    pixels = np.asarray(draw_confusion_matrix(counts))
    red, green, _, opacity = pixels[3, 70]
    assert red > green
    assert pixels[3, 3, 1] > pixels[3, 3, 0]
    assert opacity > pixels[70, 3, 3]


def read_thumbnail(pixels):
    thumbnail = make_thumbnail(pixels)
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.+)", thumbnail.url).groups()
    return thumbnail, kind, Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnail_of_small_image_keeps_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, channels), np.uint8)
    thumbnail, kind, image = read_thumbnail(pixels)
    assert (kind, thumbnail.is_pixelated) == ("png", True)
    assert (np.asarray(image).reshape(pixels.shape) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnail_of_large_image_is_shrunk(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, channels), np.uint8)
    thumbnail, kind, image = read_thumbnail(pixels)
    assert (kind, image.size, thumbnail.is_pixelated) == ("jpeg", (128, 128), False)
    assert len(thumbnail.url) < 25_000, "noise, which compresses worst"


def test_worst_mistakes_come_first_with_their_images(colors):
    (split,) = read_splits(colors, "test")
    inputs = EvaluationPipeline(make_source(split), ImageFormat(8, 3), 4)
    batches = list(inputs.named_batches())
    images = np.concatenate([each for each, _, _ in batches])
    labels = np.concatenate([each for _, each, _ in batches])
    scores = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    losses = np.random.default_rng(1).random(18)
    found = make_predictions(labels, scores)
    rows = worst_mistakes(found, losses, 5)
    wrong = found.classes != labels
    assert len(rows) == 5
    assert wrong[rows].all()
    assert losses[rows].tolist() == sorted(losses[wrong])[:-6:-1]
    assert np.array_equal(read_images(inputs, rows), images[rows])
    assert read_images(inputs, []) == []


def test_table_of_mistakes(monkeypatch):
    labels = np.array([0, 1, 1])
    scores = np.array([[0, 1], [2, 1], [0, 1]], np.float32)
    found, losses = make_predictions(labels, scores), np.array([1.5, 2.5, 0.25])
    head, rows = make_mistake_table(found, losses, "ab")
    assert head == ("file", "true", "predicted", *head[3:5], "loss")
    assert rows == [
        ("1.png", "b", "a", "0.2689", "0.7311", "2.5000"),
        ("0.png", "a", "b", "0.2689", "0.7311", "1.5000"),
    ]
    truth = np.array([[0, 0], [1, 1], [1, 1]])
    scores = np.array([[1, 1], [1, -1], [1, 1]], np.float32)
    found = make_predictions(truth, scores, multi_label=True)
    _, rows = make_mistake_table(found, losses, "ab")
    assert rows == [("1.png", "a|b", "a", "2.5000"), ("0.png", "none", "a|b", "1.5000")]
    monkeypatch.setattr(mistakes, "MAX_ROWS", 5)
    page = make_page(image_table="a b/test.images.csv")
    assert re.search("The table has the 5 worst of [0-9]+ mistakes", page)
    assert 'href="a%20b/test.images.csv">a b/test.images.csv</a>' in page
    assert "images.csv" not in make_page()


def test_sample_correct_is_spread_over_the_split():
    labels = np.zeros(100, int)
    scores = np.eye(2, dtype=np.float32)[(np.arange(100) % 2)]
    result = EvaluationResult(None, None, make_predictions(labels, scores), np.ones(100), {})
    assert sample_correct(result.predictions, 3).tolist() == [0, 48, 98]
    assert len(sample_correct(result.predictions, 99)) == 50
    wrong = EvaluationResult(
        None, None, make_predictions(labels + 1, scores[:1].repeat(100, 0)), np.ones(100), {}
    )
    assert sample_correct(wrong.predictions).tolist() == []


def test_report_runs_no_script_but_its_own():
    page = make_page()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert policy.endswith(f"; script-src {source_hash(script)}")
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    # Names of classes can't end the data.
    (data,) = re.findall('id="threshold-data">(.*?)</script>', page, re.DOTALL)
    assert [each["name"] for each in json.loads(data)][1] == "<i>class & 0</i>"


def test_threshold_curves_match_their_definition():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    scores = random.normal(size=(200, 4)).astype(np.float32)
    found = make_predictions(labels, scores)
    answer, curves = make_threshold_curves(found, "abcd")
    assert [each.name for each in curves] == ["a", "b", "c"], "d has no image"
    p = found.probabilities()
    for n in (0, 7, 33, 50, 100):
        threshold = np.float32(n / 100)
        assert answer.predicted[n] == (p.max(1) >= threshold).sum()
        assert answer.correct[n] == ((p.max(1) >= threshold) & (p.argmax(1) == labels)).sum()
        for label, curve in enumerate(curves):
            assert curve.positives == (labels == label).sum()
            assert curve.predicted[n] == (p[:, label] >= threshold).sum()
            assert curve.correct[n] == ((p[:, label] >= threshold) & (labels == label)).sum()


def test_threshold_curves_of_multi_label_and_of_many_classes():
    truth = np.eye(150, dtype=np.float32)[np.arange(150)]
    truth[:, 149] = 1
    answer, curves = make_threshold_curves(
        make_predictions(truth, 9 * truth - 4, multi_label=True), [str(n) for n in range(150)]
    )
    assert answer is None
    assert len(curves) == MAX_CLASSES
    assert curves[-1].name == "149"
    assert curves[-1].positives == curves[-1].correct[50] == 150


def test_pages_of_a_run_link_to_one_another(tmp_path):
    names = ("report.html", "evaluation/test.html", "evaluation/a & b.html")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(make_page(images=4))
    (tmp_path / "explain").mkdir()
    older = tmp_path / "explain" / "explain.html"
    older.write_text("<body>")
    for _ in range(2):
        link_pages(tmp_path)
        for name in names:
            page = tmp_path / name
            links = re.findall('<a href="([^"]+)">', page.read_text())
            targets = {(page.parent / unquote(each)).resolve() for each in links}
            assert targets == {*map(tmp_path.joinpath, names), older} - {page}
    assert older.read_text() == "<body>", "a page of an earlier version has no place for links"


def test_describe_environment(monkeypatch):
    monkeypatch.setattr(report, "_PACKAGES", ("keras", "no such package"))
    rows = dict(describe_environment())
    assert rows["Python"] == platform.python_version()
    assert rows["keras"] == keras.__version__
    assert rows["no such package"] == "not installed under this name"
    assert rows["devices"]


def test_page_is_current_by_what_it_is_made_from_not_by_time(tmp_path):
    page, history = tmp_path / "page", tmp_path / "history.csv"
    history.write_text("epoch\n1\n")
    sources = hash_sources("snapshot", "split", history)
    assert not is_current(page, sources)
    page.write_text(f'<meta name="sources" content="{sources}">')
    os.utime(page, (0, 0))
    assert is_current(page, sources)
    # A clock that was wrong: the page lies ahead of all that it is made from.
    os.utime(page, (2**32, 2**32))
    for snapshot, split, rows in (("s", "split", "1"), ("snapshot", "s", "1"), ("a", "b", "2")):
        history.write_text(f"epoch\n{rows}\n")
        assert not is_current(page, hash_sources(snapshot, split, history))


def test_summary_is_about_a_snapshot_and_a_split(tmp_path):
    path = tmp_path / "validation.json"
    assert not is_about(path, "a", "b")
    path.write_text('{"snapshot_sha256": "a", "data": {"fingerprint": "b"}}')
    assert is_about(path, "a", "b")
    assert not is_about(path, "x", "b")
    assert not is_about(path, "a", "x")
    path.write_text("[]")
    assert not is_about(path, "a", "b")


@pytest.mark.slow
def test_train_and_evaluate_write_reports(options, tmp_path, capsys):
    options.remove("--no-report")
    options += ["--bootstrap_samples", "20"]
    folder = tmp_path / "run"
    # In the way of the folder that the first evaluation wants.
    folder.mkdir()
    (folder / "evaluation").touch()
    assert run_main(run.main, options, "run.py") == 0
    assert "warning: could not write" in (err := capsys.readouterr().err)
    assert "report.html" in err
    assert not (folder / "report.html").exists()

    (folder / "evaluation").unlink()
    assert run_main(run.main, options, "run.py") == 0
    page = (folder / "report.html").read_text()
    assert "100.0 % correct on the validation split" in page
    assert "--train_epochs" not in page
    assert "command line" in page
    assert json.loads((folder / "evaluation" / "validation.json").read_text())["images"] == 18
    written = (folder / "report.html").stat().st_mtime_ns

    assert run_main(run.main, options, "run.py") == 0
    assert (folder / "report.html").stat().st_mtime_ns == written, "nothing changed"
    capsys.readouterr()
    (folder / "evaluation").rename(folder / "aside")
    (folder / "evaluation").touch()
    assert run_main(run.main, ["evaluate", *options], "run.py") == 0
    printed, err = capsys.readouterr()
    assert json.loads(printed.splitlines()[-1])["split"] == "test"
    assert "warning: could not write" in err
    (folder / "evaluation").unlink()
    (folder / "aside").rename(folder / "evaluation")
    assert run_main(run.main, ["evaluate", *options], "run.py") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((folder / "evaluation" / "test.json").read_text()) == printed
    for name, where in (("report", "evaluation/validation"), ("evaluation/test", "test")):
        assert f'href="{where}.images.csv"' in (folder / f"{name}.html").read_text()
    with (folder / "evaluation" / "test.images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert np.mean([row["label"] == row["prediction"] for row in rows]) == printed["accuracy"]
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(printed["loss"])
    page = (folder / "evaluation" / "test.html").read_text()
    assert "correct on the test split" in page
    assert "<th>in train</th>" in page
    assert '<th scope="row">train</th><td>60</td><td>20 to 20</td><td>-</td>' in page
