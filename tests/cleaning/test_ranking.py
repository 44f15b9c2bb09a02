"""The ranking: neighbors and duplicates as evidence, rare and absent classes, determinism."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from library.cleaning.duplicate_labels import settle
from library.cleaning.evidence import Evidence, write_ranking
from library.cleaning.image_scan import find_duplicates
from library.cleaning.neighbor_votes import find_votes
from library.cleaning.ranking import confused_pairs, rank
from library.cleaning.suspects import CONFIDENT_LEARNING, DUPLICATE, NEIGHBORS
from library.prediction.image_outputs import ImageOutputs
from tests.cleaning.test_confident_learning import make_answers, make_labels

CLASSES = ("cat", "dog", "eel")


def make_outputs(images=600, classes=3, *, folds=None, seed=0, **options):
    """Return ImageOutputs with an embedding near the center of the true class, and which are wrong.

    Each fold has embeddings in a direction of its own.
    """
    probabilities, labels, truth = make_labels(images, classes, seed=seed, **options)
    random = np.random.default_rng(seed)
    networks = np.zeros(images, int) if folds is None else folds
    centers = random.normal(size=(networks.max() + 1, classes, 16))
    embeddings = centers[networks, truth] + random.normal(size=(images, 16)) / 2
    names = [f"{CLASSES[label % 3]}/{number}.jpg" for number, label in enumerate(labels)]
    found = (names, CLASSES[:classes], labels, probabilities, embeddings.astype(np.float32))
    return ImageOutputs(*found, folds), labels != truth


def test_votes_are_those_of_the_neighbors_in_the_same_fold():
    folds = np.arange(600) % 2 + 1
    outputs, _ = make_outputs(folds=folds)
    votes = find_votes(outputs)
    assert votes.indices.shape == (600, 20)
    for fold in (1, 2):
        rows = np.flatnonzero(folds == fold)
        peer = NearestNeighbors(metric="cosine").fit(outputs.embeddings[rows])
        expected = rows[peer.kneighbors(n_neighbors=20, return_distance=False)]
        assert np.array_equal(votes.indices[rows], expected)
    counts = np.stack([(outputs.labels[votes.indices] == each).sum(1) for each in range(3)], 1)
    assert np.allclose(votes.shares, counts / 20, atol=0.05)
    assert np.allclose(votes.shares.sum(1), 1)


@pytest.mark.parametrize("confused", [False, True])
def test_neighbors_improve_the_ranking(confused):
    outputs, is_wrong = make_outputs(1200, confused=confused)
    alone = average_precision_score(is_wrong, -rank(outputs, None, []).scores)
    together = rank(outputs, find_votes(outputs), [])
    assert average_precision_score(is_wrong, -together.scores) > alone + 0.05
    again = rank(outputs, find_votes(outputs), [])
    assert np.array_equal(together.order, again.order)
    assert np.array_equal(together.scores, again.scores)
    pairs = confused_pairs(together, outputs)
    assert sum(count for *_, count in pairs) == together.is_suspected.sum()
    assert [count for *_, count in pairs] == sorted((each[2] for each in pairs), reverse=True)


def test_multi_label_neighbors_improve_the_ranking():
    probabilities, labels, is_flipped = make_answers(800, 4, strength=1.5)
    truth = labels.astype(bool) ^ is_flipped
    random = np.random.default_rng(1)
    embeddings = truth @ random.normal(size=(4, 16)) + random.normal(size=(800, 16)) / 4
    names = [f"{number}.jpg" for number in range(800)]
    outputs = ImageOutputs(names, tuple("abcd"), labels, probabilities, embeddings)
    ranking = rank(outputs, find_votes(outputs), [])
    is_wrong = is_flipped.any(1)
    alone = average_precision_score(is_wrong, -rank(outputs, None, []).scores)
    assert average_precision_score(is_wrong, -ranking.scores) > alone
    evidence, worst = Evidence(ranking, outputs), int(ranking.order[0])
    assert set(evidence.label(worst)) ^ set(evidence.suggestion(worst))
    assert "not" in evidence.explain(worst)
    assert confused_pairs(ranking, outputs)


def test_duplicates_with_other_labels_are_suspected():
    outputs, is_wrong = make_outputs()
    right = np.flatnonzero(~is_wrong)
    groups = [right[:2], right[2:5]]
    outputs.labels[right[:5]] = [0, 1, 2, 2, 0]
    outputs.probabilities[right[:5]] = [[0.9, 0.05, 0.05]] * 2 + [[0.02, 0.03, 0.95]] * 3
    ranking = rank(outputs, None, [*groups, right[5:6]])
    assert ranking.is_suspected[right[[1, 4]]].all()
    assert not ranking.is_suspected[right[[0, 2, 3]]].any()
    assert ranking.suggestions[right[[1, 4]]].tolist() == [0, 2]
    evidence = Evidence(ranking, outputs)
    assert DUPLICATE in evidence.reasons(right[1])
    assert outputs.names[right[0]] in evidence.explain(right[1])
    assert evidence.near(right[1]) == [right[0]]


def test_settle():
    # One of two labels is right, and both were equally probable.
    assert settle(np.array([0.9, 0.9]), np.array([1, 2]), is_binary=False).max() < 0.5
    assert settle(np.array([0.9, 0.9]), np.array([0, 1]), is_binary=True).tolist() == [0.5, 0.5]
    # By enumeration: labels a, a, b are right with the probabilities 0.8, 0.7 and 0.6.
    a, b, neither = 0.8 * 0.7 * 0.4, 0.2 * 0.3 * 0.6, 0.2 * 0.3 * 0.4
    found = settle(np.array([0.8, 0.7, 0.6]), np.array([5, 5, 3]), is_binary=False)
    assert found == pytest.approx(np.array([a, a, b]) / (a + b + neither))
    # Many sure duplicates don't become NaN.
    many = settle(np.ones(1000), np.arange(1000) % 2, is_binary=False)
    assert many == pytest.approx(0.5)


def test_reasons_name_the_evidence(tmp_path):
    outputs, is_wrong = make_outputs()
    evidence = Evidence(rank(outputs, find_votes(outputs), []), outputs)
    worst = evidence.worst(30)
    assert len(worst) == 30
    assert is_wrong[worst].mean() > 0.8
    assert {CONFIDENT_LEARNING, NEIGHBORS} == {each for n in worst for each in evidence.reasons(n)}
    assert all("20 nearest" in evidence.explain(each) for each in worst)
    write_ranking(tmp_path, evidence)
    rows = (tmp_path / "ranking.csv").read_text().splitlines()
    assert len(rows) == 601
    assert rows[1].startswith(outputs.names[worst[0]])


@pytest.mark.parametrize("images", [1, 2, 5])
def test_ranking_of_a_few_images(images):
    outputs, _ = make_outputs(images)
    ranking = rank(outputs, find_votes(outputs), [])
    assert sorted(ranking.order) == list(range(images))
    assert np.isfinite(ranking.scores).all()
    assert Evidence(ranking, outputs).explain(0)


def test_right_labels_and_absent_classes_leave_nothing_to_suspect():
    labels = np.arange(60) % 2
    probabilities = np.full((60, 3), 0.02, np.float32)
    probabilities[np.arange(60), labels] = 0.96
    embeddings = np.eye(2, dtype=np.float32)[labels]
    names = [f"{number}.jpg" for number in range(60)]
    outputs = ImageOutputs(names, CLASSES, labels, probabilities, embeddings)
    ranking = rank(outputs, find_votes(outputs), [])
    assert not ranking.is_suspected.any()
    assert Evidence(ranking, outputs).worst(10) == []
    assert ranking.order.tolist() == list(range(60))


def test_plain_images_are_duplicates_only_if_they_are_equal():
    exact = np.array([1, 2, 2, 3, 4], np.uint64)
    perceptual = np.zeros((5, 2), np.uint64)
    perceptual[3:] = 2**40 - 1
    groups = find_duplicates(exact, perceptual, np.zeros((5, 64), np.int8))
    assert sorted(each.tolist() for each in groups) == [[1, 2], [3, 4]]
