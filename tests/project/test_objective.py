import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax, softmax

from library.errors import SettingsError
from library.messages import ChoiceError
from project.hyperparameters import Hyperparameters
from project.objective import LOSSES, Loss, MultiLabelObjective, Objective, choose_loss

SCORES = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], np.float32)
LABELS = np.array([0, 2], np.int64)
LOG_PROBABILITIES = SCORES - np.log(np.exp(SCORES).sum(1, keepdims=True))


def tiny():
    pixels = keras.Input((2, 2, 1))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))


def test_metrics_by_hand():
    metrics = Objective().metrics(tf.constant(LABELS), tf.constant(SCORES))
    assert list(metrics) == list(Objective.names)
    assert np.allclose(metrics["loss"], -LOG_PROBABILITIES[[0, 1], LABELS], atol=1e-6)
    assert metrics["accuracy"].numpy().tolist() == [1, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_training_loss_by_hand(smoothing):
    network = tiny()
    network(np.ones((1, 2, 2, 1), np.float32))
    objective = Objective(label_smoothing=smoothing, l2_regularization=0.1)
    targets = np.full((2, 3), smoothing / 3)
    targets[[0, 1], LABELS] += 1 - smoothing
    cross_entropy = -(targets * LOG_PROBABILITIES).sum(1).mean()
    kernel, bias = network.trainable_variables
    bias.assign([10.0, 10.0, 10.0])  # must not count
    by_hand = cross_entropy + 0.1 * (kernel.numpy() ** 2).sum() / 2
    losses = objective.training_losses(tf.constant(LABELS), tf.constant(SCORES))
    loss = np.mean(losses) + objective.penalty(network)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_metrics_without_smoothing():
    plain, smooth = Objective().metrics, Objective(label_smoothing=0.5).metrics
    assert np.array_equal(plain(LABELS, SCORES)["loss"], smooth(LABELS, SCORES)["loss"])


MULTI_LABELS = np.array([[1, 0, 1], [0, 0, 0]], np.float32)


def test_multi_label_metrics_match_keras():
    metrics = MultiLabelObjective().metrics(MULTI_LABELS, SCORES)
    assert tuple(metrics) == MultiLabelObjective.names
    ours = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    assert np.allclose(metrics["loss"], ours(MULTI_LABELS, SCORES), atol=1e-6)
    # Correct: the first of three; and, because a score of 0 is not above a half, the first again.
    assert np.allclose(metrics["accuracy"], [1 / 3, 1 / 3])
    assert metrics["exact_match"].numpy().tolist() == [0, 0]
    correct = np.where(MULTI_LABELS > 0, 1.0, -1.0).astype(np.float32)
    assert MultiLabelObjective().metrics(MULTI_LABELS, correct)["exact_match"].numpy().tolist() == [
        1,
        1,
    ]


def test_multi_label_training_loss():
    theirs = keras.losses.BinaryCrossentropy(True, 0.2, reduction="none")
    smooth = MultiLabelObjective(label_smoothing=0.2).training_losses(MULTI_LABELS, SCORES)
    assert np.allclose(smooth, theirs(MULTI_LABELS, SCORES), atol=1e-6)
    first = MultiLabelObjective(class_weights=(3.0, 0.0, 0.0)).training_losses(MULTI_LABELS, SCORES)
    assert np.allclose(first, [np.log1p(np.exp(-2.0)), np.log(2)], atol=1e-6)


ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]


def loss_of(name, multi_label=False, **hyperparameters):
    values = Hyperparameters(loss=name, **hyperparameters).model_dump()
    return choose_loss(values, is_multi_label=multi_label)


def by_formula(name, multi_label, targets, scores):
    """The papers' equations, in float64, one class at a time and for hard targets only."""
    if not multi_label and name != "binary_cross_entropy":
        p = (targets * softmax(scores.astype(float), 1)).sum(1)
        return {
            "asymmetric": -((1 - p) ** 0.5) * np.log(p),
            "cross_entropy": -np.log(p),
            "focal": -((1 - p) ** 1.5) * np.log(p),
            "poly": -np.log(p) + 0.7 * (1 - p),
        }[name]
    p = expit(scores.astype(float))
    own = np.where(targets == 1, p, 1 - p)
    if name == "asymmetric":
        lowered = np.maximum(p - 0.1, 0)
        absent = -(lowered**3) * np.log(1 - lowered)
        return np.where(targets == 1, -((1 - p) ** 0.5) * np.log(p), absent)
    return {
        "cross_entropy": -np.log(own),
        "binary_cross_entropy": -np.log(own),
        "focal": -np.where(targets == 1, 0.3, 0.7) * (1 - own) ** 1.5 * np.log(own),
        "poly": -np.log(own) + 0.7 * (1 - own),
    }[name]


FORMULA_SETTINGS = {
    "focal_gamma": 1.5,
    "poly_epsilon": 0.7,
    "asymmetric_gamma_positive": 0.5,
    "asymmetric_gamma_negative": 3.0,
    "asymmetric_clip": 0.1,
}
DEFINED = [(name, n) for name, each in LOSSES.items() for n in (0, 1) if each[n]]


@pytest.mark.parametrize(("name", "multi_label"), DEFINED)
def test_loss_matches_its_formula(name, multi_label):
    random = np.random.default_rng(0)
    scores = random.normal(0, 3, (50, 4)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[random.integers(4, size=50)]
    if multi_label:
        targets = random.integers(2, size=(50, 4)).astype(np.float32)
    alpha = {"focal_alpha": 0.3} if multi_label else {}
    loss = loss_of(name, multi_label, **FORMULA_SETTINGS, **alpha)
    losses = loss(targets, tf.constant(scores)).numpy()
    expected = by_formula(name, multi_label, targets, scores)
    assert np.allclose(losses, expected, rtol=2e-5, atol=1e-6)
    assert losses.shape == expected.shape


@pytest.mark.parametrize(("name", "multi_label"), DEFINED)
def test_loss_of_soft_targets_and_extreme_scores(name, multi_label):
    """The loss of mixed images is the mean of that of their classes; its slope is finite."""
    kind = MultiLabelObjective if multi_label else Objective
    loss = loss_of(name, multi_label, focal_gamma=0.5, asymmetric_gamma_negative=0.5)
    objective = kind(loss=loss)
    scores, targets = tf.constant([[2.0, 1, -1]] * 2), tf.constant([[1.0, 0, 0], [0, 0, 1]])
    both = objective.training_losses(targets, scores)
    mixed = objective.training_losses(tf.constant([[0.3, 0, 0.7]]), scores[:1])
    assert np.allclose(mixed, 0.3 * both[0] + 0.7 * both[1], atol=1e-6)
    # From no network but a diverging one.
    scores = tf.Variable([[200.0, -200, 0], [-200, 200, 0]])
    for each in (targets, targets * 0.8 + 0.2 / 3):
        with tf.GradientTape() as tape:
            losses = objective.training_losses(each, scores)
        slopes = tape.gradient(losses, scores)
        assert np.isfinite(losses).all()
        assert np.isfinite(slopes).all()
        # What is wrong is still corrected.
        if name not in ("asymmetric", "poly"):
            assert slopes[1, 1] > 0


def test_asymmetric_loss_matches_its_authors():
    """ASLSingleLabel of Alibaba-MIIL/ASL, line by line in NumPy."""
    smoothing, positive, negative = 0.3, 0.5, 3.0
    log_p = log_softmax(SCORES.astype(float), 1)
    p, weights = np.exp(log_p), 1 - ONE_HOT
    exponents = positive * ONE_HOT + negative * weights
    factors = (1 - p * ONE_HOT - (1 - p) * weights) ** exponents
    smoothed = ONE_HOT * (1 - smoothing) + smoothing / 3
    loss = loss_of("asymmetric", xentropy_label_smoothing=smoothing, **FORMULA_SETTINGS)
    losses = Objective(smoothing, loss=loss).training_losses(LABELS, SCORES)
    assert np.allclose(losses, -(smoothed * log_p * factors).sum(1), atol=1e-6)


def test_focal_losses_match_keras():
    scores = tf.constant(SCORES)
    theirs = keras.losses.CategoricalFocalCrossentropy(1.0, 2.0, True, reduction="none")
    assert np.allclose(loss_of("focal")(ONE_HOT, scores), theirs(ONE_HOT, SCORES), atol=1e-5)
    theirs = keras.losses.BinaryFocalCrossentropy(True, 0.25, 2.0, True, reduction="none")
    ours = loss_of("focal", True, focal_alpha=0.25)(MULTI_LABELS, scores)
    assert np.allclose(np.mean(ours, 1), theirs(MULTI_LABELS, SCORES), atol=1e-5)


def test_default_loss_is_cross_entropy_to_the_bit():
    scores, targets = tf.constant(SCORES), tf.constant(ONE_HOT) * 0.9 + 0.1 / 3
    losses = Objective(0.1, loss=loss_of("cross_entropy")).training_losses(LABELS, scores)
    assert np.array_equal(losses, tf.nn.softmax_cross_entropy_with_logits(targets, scores))
    for name, settings in (("focal", {"focal_gamma": 0.0}), ("poly", {"poly_epsilon": 0.0})):
        other = Objective(0.1, loss=loss_of(name, **settings)).training_losses(LABELS, scores)
        assert np.allclose(other, losses, atol=1e-6)


def test_binary_cross_entropy_of_single_labels():
    """As in timm: the mean over classes, smoothed as for softmax; weighted by the image's class."""
    theirs = keras.losses.BinaryCrossentropy(True, reduction="none")
    expected = theirs(ONE_HOT * 0.9 + 0.1 / 3, SCORES) * np.array([2.0, 0.5])
    loss = loss_of("binary_cross_entropy")
    objective = Objective(0.1, class_weights=(2.0, 1.0, 0.5), loss=loss)
    assert np.allclose(objective.training_losses(LABELS, SCORES), expected, atol=1e-6)
    # The head sigmoid has one logit beside a constant 0.
    scores = np.array([[0.0, 1.5], [0.0, -0.3]], np.float32)
    losses = loss_of("binary_cross_entropy", head="sigmoid")(np.eye(2, dtype=np.float32), scores)
    wanted = keras.losses.BinaryCrossentropy(True, reduction="none")(
        np.array([[0], [1]]), scores[:, 1:]
    )
    assert np.allclose(losses, wanted, atol=1e-6)


def test_logit_offsets_change_the_training_loss_only():
    offsets = np.log([0.7, 0.2, 0.1])
    plain, adjusted = Objective(), Objective(logit_offsets=tuple(offsets.tolist()))
    expected = -log_softmax(SCORES + offsets, 1)[[0, 1], LABELS]
    assert np.allclose(adjusted.training_losses(LABELS, SCORES), expected, atol=1e-6)
    metrics = [each.metrics(tf.constant(LABELS), SCORES)["loss"] for each in (plain, adjusted)]
    assert np.array_equal(*metrics)


@pytest.mark.parametrize(
    ("settings", "multi_label", "names"),
    [
        ({"loss": "own"}, True, ("own", "focal")),
        ({"loss": "focal", "focal_alpha": 0.25}, False, ("focal_alpha", "class_weight")),
        ({"logit_adjustment": 1.0}, True, ("logit_adjustment",)),
        ({"loss": "binary_cross_entropy", "logit_adjustment": 1.0}, False, ("logit_adjustment",)),
    ],
)
def test_losses_that_do_not_fit_the_labels(settings, multi_label, names, monkeypatch):
    monkeypatch.setitem(LOSSES, "own", Loss(LOSSES["cross_entropy"].single_label, None))
    with pytest.raises(SettingsError) as caught:
        choose_loss(Hyperparameters(**settings).model_dump(), is_multi_label=multi_label)
    assert all(each in str(caught.value) for each in names)


def test_unknown_loss():
    with pytest.raises(ChoiceError, match="'focal'"):
        loss_of("fokal")
