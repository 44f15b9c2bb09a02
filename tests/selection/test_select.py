"""What `select` chooses, against brute force, and how it writes that down."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from library.prediction.neighbor_index import normalize
from library.prediction.preprocess import Prediction
from library.selection.candidates import (
    COPY_SIMILARITY,
    collect_candidates,
    find_distinct,
    measure_uncertainty,
)
from library.selection.choose import choose_diverse, measure_distances
from library.selection.formats import (
    Choice,
    count_hidden,
    find_document_root,
    format_csv,
    format_label_studio,
    labeling_interface,
)
from tests.commands.test_run import call
from tests.conftest import ROOT, convert, write_colors

RANDOM = np.random.default_rng(0)


def unit_vectors(count, size, seed=0):
    return normalize(np.random.default_rng(seed).standard_normal((count, size)))


def distances(one, other):
    return np.linalg.norm(one[:, None] - other[None], axis=2)


def test_uncertainty_is_one_minus_the_margin():
    probabilities = RANDOM.dirichlet(np.ones(4), 50).astype(np.float32)
    first, second = -np.sort(-probabilities, axis=1)[:, :2].T
    assert np.allclose(measure_uncertainty(probabilities), 1 - first + second)
    labels = np.array([[0.9, 0.45], [0.01, 1.0]])
    assert np.allclose(measure_uncertainty(labels, multi_label=True), [0.9, 0.02])


def test_choose_diverse_draws_by_the_squared_distance_of_gradients():
    probabilities = RANDOM.dirichlet(np.ones(3), 80)
    embeddings = unit_vectors(80, 4)
    errors = probabilities - np.eye(3)[probabilities.argmax(1)]
    gradients = (errors[:, :, None] * embeddings[:, None]).reshape(80, -1)
    random = np.random.default_rng(5)
    expected = [int(np.linalg.norm(gradients, axis=1).argmax())]
    while len(expected) < 20:
        centers = np.concatenate([np.zeros((1, 12)), gradients[expected]])
        squares = distances(gradients, centers).min(1) ** 2
        squares[expected] = 0
        expected.append(int(random.choice(80, p=squares / squares.sum())))
    assert choose_diverse(probabilities, embeddings, 20, seed=5).tolist() == expected
    assert sorted(choose_diverse(probabilities, embeddings, 100)) == list(range(80))


@pytest.mark.parametrize("multi_label", [False, True])
def test_choose_diverse_takes_copies_and_certain_images_last(multi_label):
    # Ten frames of each of three scenes, and images that teach nothing.
    embeddings = np.concatenate([np.repeat(unit_vectors(3, 8), 10, axis=0), unit_vectors(5, 8, 1)])
    probabilities = np.repeat([[0.5, 0.5], [1, 0]], [30, 5], axis=0)
    rows = choose_diverse(probabilities, embeddings, 35, multi_label=multi_label)
    assert {row // 10 for row in rows[:3]} == {0, 1, 2}
    assert sorted(rows) == list(range(35))


def test_measure_distances_counts_labeled_and_earlier_images():
    embeddings, labeled = unit_vectors(30, 3), unit_vectors(5, 3, 1)
    found = measure_distances(embeddings, labeled)
    for number in range(30):
        others = np.concatenate([labeled, embeddings[:number]])
        nearest = distances(embeddings[number : number + 1], others).min()
        assert found[number] == pytest.approx(nearest, abs=1e-3)
    assert measure_distances(embeddings)[0] == 2


def test_find_distinct_matches_one_by_one():
    embeddings = unit_vectors(900, 2)
    expected = []
    for row, each in enumerate(embeddings):
        if not expected or (embeddings[expected] @ each).max() < COPY_SIMILARITY:
            expected.append(row)
    assert 5 < len(expected) < 800
    assert find_distinct(embeddings, 1000).tolist() == expected
    assert find_distinct(embeddings, 4).tolist() == expected[:4]


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
def test_candidates_are_the_most_uncertain_however_they_come(limit):
    probabilities = RANDOM.dirichlet(np.ones(3), 300).astype(np.float32)
    embeddings = unit_vectors(300, 40)
    predictions = [
        Prediction(str(number), *each[:1], None, each[1])
        for number, each in enumerate(zip(probabilities, embeddings, strict=True))
    ]
    # A copy of each, as far away as can be, and unreadable files.
    predictions += [Prediction("x", None, "is empty"), *predictions]
    order = np.argsort(-measure_uncertainty(probabilities), kind="stable")
    found = collect_candidates(iter(predictions), limit)
    assert found.names == [str(each) for each in order[:limit]]
    assert np.allclose(found.embeddings, embeddings[order[:limit]])
    assert len(collect_candidates(iter([]), limit)) == 0


def test_csv_can_be_read_with_labels_filled_in():
    choices = [Choice("a,b.png", ("cat",), 0.5, 0.9, 1.5), Choice("c\n.png", ("a", "b"), 1, 0, 0)]
    first, second = csv.DictReader(format_csv(choices).splitlines())
    assert (first["file"], first["label"], first["prediction"]) == ("a,b.png", "", "cat")
    assert (first["uncertainty"], first["distance"]) == ("0.9", "1.5")
    assert (second["file"], second["prediction"]) == (r"c\n.png", "a|b")


def test_label_studio_tasks_fit_the_labeling_interface(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["photos/a b#?&.png", "../other/é.png", "https://example.org/x.jpg"]
    choices = [Choice(name, ('<"cat">',), 0.5, 0.9, 1.5) for name in names]
    choices.append(Choice("photos/none.png", (), 0.1, 0.9, 1.5))
    root = find_document_root(names)
    assert root == tmp_path.parent
    tasks = json.loads(format_label_studio(choices, "simple 1234", root))
    interface = ET.fromstring(labeling_interface(['<"cat">', "dog"]))
    image, control = interface.find("Image"), interface.find("Choices")
    known = {each.get("value") for each in control.iter("Choice")}
    assert known == {'<"cat">', "dog"}
    for task in tasks[:3]:
        assert image.get("value") == "$image"
        (prediction,) = task["predictions"]
        assert (prediction["model_version"], prediction["score"]) == ("simple 1234", 0.5)
        (result,) = prediction["result"]
        assert result["type"] == "choices"
        assert (result["from_name"], result["to_name"]) == (control.get("name"), image.get("name"))
        assert set(result["value"]["choices"]) <= known
    assert tasks[3]["predictions"][0]["result"] == []
    for name, task in zip(names[:2], tasks, strict=False):
        url = urlsplit(task["data"]["image"])
        assert url.path == "/data/local-files/"
        assert (root / parse_qs(url.query)["d"][0]) == (tmp_path / name).parent.resolve() / Path(
            name
        ).name
    assert tasks[2]["data"]["image"] == names[2]
    assert count_hidden(["a.zip/x.png", names[2], __file__]) == 1
    assert find_document_root(names[2:]) == find_document_root(["x.png"]) == tmp_path


def test_select_prefers_doubtful_images_unlike_each_other(
    capsys, snapshot_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    write_colors(tmp_path / "pool", 2, seed=3)
    for number, color in enumerate([(125, 120, 30), (30, 120, 130), (130, 40, 125)]):
        for copy in range(2):
            Image.new("RGB", (20, 20), color).save(tmp_path / "pool" / f"{number}_{copy}.png")
    (tmp_path / "pool" / "broken.png").write_text("no image")
    arguments = ("select", str(tmp_path / "pool"), *snapshot_run.options, "--count=3")
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "broken.png" in err
    assert "3 images selected of 13, 1 unreadable" in err
    rows = list(csv.DictReader(out.splitlines()))
    # Each mixed color once, although there are two of each.
    assert {Path(row["file"]).name[:2] for row in rows} == {"0_", "1_", "2_"}
    assert call(capsys, *arguments)[1] == out
    # Labels filled in, it is a data set.
    table = tmp_path / "labels.csv"
    table.write_text(out.replace(",,", ",red,", 1).replace(",,", ",blue,"))
    convert(table, tmp_path / "converted", "train")
    capsys.readouterr()

    elsewhere = [str(tmp_path / "no_data") if each == arguments[3] else each for each in arguments]
    code, out, err = call(capsys, *elsewhere, "--select_format=label_studio")
    assert code == 0, err
    assert "without calibration" in err
    assert len(json.loads(out)) == 3
    assert call(capsys, "select", str(tmp_path / "pool/broken.png"), *arguments[2:])[0] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("select", 2, "path"),
        ("select no_such_place", 3, "no_such_place"),
        ("select README.md --count=0", 2, "count"),
        ("select README.md --unknown_rate=0.1", 2, "unknown_rate has no effect on select"),
    ],
)
def test_usage_errors_are_one_line(capsys, monkeypatch, arguments, code, text):
    monkeypatch.chdir(ROOT)
    found, out, err = call(capsys, *arguments.split())
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert text in err
