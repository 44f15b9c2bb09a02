"""Scores of unknown images against scikit-learn and plain formulas, and what is fitted to them."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

from library.errors import DivergedError
from library.inputs.examples import without_autotune
from library.models.scores import MULTI_LABEL
from library.prediction.calibrate import UNKNOWN, choose_classes
from library.prediction.ensemble import combine_snapshots
from library.prediction.fit_unknown import (
    UnknownFit,
    choose_bank,
    fit_unknown,
    read_unknown_fit,
    write_unknown_fit,
)
from library.prediction.image_outputs import ImageOutputs
from library.prediction.predictor import Predictor
from library.prediction.unknown_score import NEIGHBOR, UnknownDetector
from tests.helpers.networks import PIXELS, make_snapshot, scores_of

RANDOM = np.random.default_rng(1)
BANK = RANDOM.standard_normal((40, 3)).astype(np.float32)
BANK /= np.linalg.norm(BANK, axis=1, keepdims=True)


class Split:
    """Images with labels, as EvaluationPipeline."""

    examples, batches_per_epoch, source = 60, 4, None

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.images = random.integers(0, 256, (60, 8, 8, 3), np.uint8)

    def named_batches(self):
        names = [f"{number}.png" for number in range(60)]
        data = tf.data.Dataset.from_tensor_slices((self.images, np.arange(60) % 3, names))
        return without_autotune(data).batch(16)


def test_neighbors_score_matches_scikit_learn():
    # A wide hidden layer makes some embeddings zeros only in part.
    snapshot = make_snapshot(hidden=3)
    detector = UnknownDetector("neighbors", threshold=0.25, unit=2.0, bank=BANK)
    outputs = Predictor([snapshot], embedding=True, detector=detector).run(PIXELS)
    nearest = NearestNeighbors(n_neighbors=NEIGHBOR, metric="cosine").fit(BANK)
    distances, _ = nearest.kneighbors(outputs.embeddings)
    assert np.allclose(outputs.unknown_scores, (distances[:, -1] - 0.25) / 2, atol=1e-6)
    assert outputs.unknown_scores.dtype == np.float32
    assert np.array_equal(outputs.probabilities, Predictor([snapshot]).probabilities(PIXELS))


@pytest.mark.parametrize("head", ["scores", MULTI_LABEL])
def test_energy_matches_its_formula_whatever_the_temperature(head):
    members = [make_snapshot(seed, head=head) for seed in range(2)]
    snapshot = combine_snapshots(members, views=2)
    scores = scores_of(snapshot).astype(np.float64)
    expected = logsumexp(scores, axis=1) if head == "scores" else np.log1p(np.exp(scores)).sum(1)
    for temperature in (1.0, 2.5):
        detector = UnknownDetector("energy", threshold=-1.5, temperature=temperature)
        found = Predictor([snapshot], [temperature], detector=detector).run(PIXELS)
        assert np.allclose(found.unknown_scores, 1.5 - expected, atol=1e-5)
        assert found.embeddings.shape == (len(PIXELS), 0)


def test_fit_unknown_scores_the_validation_split_by_the_training_split():
    snapshot = make_snapshot(hidden=8)
    training, validation = Split(0), Split(1)
    fit = fit_unknown(snapshot, "neighbors", training, validation)
    embed = Predictor([snapshot], embedding=True).predict
    nearest = NearestNeighbors(n_neighbors=NEIGHBOR, metric="cosine")
    nearest.fit(embed(training.images)[1])
    distances, _ = nearest.kneighbors(embed(validation.images)[1])
    assert np.allclose(fit.validation_scores, np.sort(distances[:, -1]), atol=1e-6)


def test_fit_unknown_refuses_nan():
    snapshot = make_snapshot()
    snapshot.network.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(DivergedError):
        fit_unknown(snapshot, "energy", None, Split(0))


@pytest.mark.parametrize("count", [1, 30, 100])
@pytest.mark.parametrize("rate", [0, 0.05, 0.1, 0.29, 1])
def test_detector_calls_at_most_a_share_of_the_validation_images_unknown(rate, count):
    random = np.random.default_rng(count)
    scores = np.sort(random.standard_normal(count).astype(np.float32))
    detector = UnknownFit(["x"], "energy", BANK[:0], scores).make_detector(rate)
    unknown = int((scores > detector.threshold).sum())
    most = round(rate * 100) * count // 100
    assert unknown == min(most, count - 1)
    assert detector.unit == pytest.approx(scores.std() or 1)
    # Equal scores are all known, or all unknown.
    equal = UnknownFit(["x"], "energy", BANK[:0], np.zeros(count, np.float32))
    assert equal.make_detector(rate).threshold == 0


def test_choose_bank_has_as_many_images_of_each_class_as_possible():
    labels = np.repeat([0, 1, 2], [50, 4, 46])
    outputs = ImageOutputs(["x"] * 100, ("a", "b", "c"), labels, None, np.eye(100) * 3)
    bank = choose_bank(outputs, 24)
    assert np.array_equal(bank.sum(1), np.ones(24))
    assert np.bincount(labels[bank.argmax(1)]).tolist() == [10, 4, 10]
    assert np.array_equal(bank, choose_bank(outputs, 24))
    assert len(choose_bank(outputs, 1000)) == 100
    several = ImageOutputs(["x"] * 100, ("a", "b"), np.ones((100, 2)), None, np.eye(100))
    assert len(np.unique(choose_bank(several, 24).argmax(1))) == 24


def test_unknown_fit_is_read_only_whole_and_by_its_own_networks(tmp_path, capsys):
    first, second = (make_snapshot(seed) for seed in range(2))
    first, second = (
        type(each)(each.network, each.classes, {}, tmp_path, sha256=str(number))
        for number, each in enumerate((first, second))
    )
    path = tmp_path / "unknown.npz"
    assert read_unknown_fit(path, first, "neighbors") is None
    fit = UnknownFit(["0", "1 views"], "neighbors", BANK, np.arange(5, dtype=np.float32))
    write_unknown_fit(path, fit)
    found = read_unknown_fit(path, first, "neighbors")
    assert np.array_equal(found.bank, BANK)
    assert np.array_equal(found.validation_scores, fit.validation_scores)
    for other in (second, combine_snapshots([first, second]), combine_snapshots([first], views=2)):
        assert read_unknown_fit(path, other, "neighbors") is None
    assert read_unknown_fit(path, first, "energy") is None
    assert capsys.readouterr().err == ""
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        found = read_unknown_fit(path, first, "neighbors")
        # What is left may be a byte that nothing reads, such as a time.
        assert found is None or np.array_equal(found.bank, BANK)
    assert "unknown.npz" in capsys.readouterr().err
    write_unknown_fit(tmp_path, fit)
    assert str(tmp_path) in capsys.readouterr().err


def test_choose_classes_answers_unknown_by_the_score():
    sure, classes = np.array([0.9, 0.1]), ("cat", "dog")
    assert choose_classes(sure, classes, unknown_score=0.1) == UNKNOWN
    assert choose_classes(sure, classes, unknown_score=0.0) == "cat"
    assert choose_classes(sure, classes, 0.95, unknown_score=-1) == UNKNOWN
    assert choose_classes(sure, classes, None, True, 0.1) == [UNKNOWN]
    assert choose_classes(sure, classes, None, True, -0.1) == ["cat"]
