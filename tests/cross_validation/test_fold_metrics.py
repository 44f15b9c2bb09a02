import numpy as np
import pytest
import sklearn.metrics

from library.cross_validation.fold_metrics import (
    compute_fold_metrics,
    format_fold_metrics,
    pool_predictions,
)
from library.evaluation.metrics import EvaluationOptions
from library.evaluation.predictions import Predictions
from project.objective import MultiLabelObjective, Objective

CLASSES = ("cat", "dog", "owl")


def predict(count, seed, *, multi_label=False):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(count, 3)).astype(np.float32)
    labels = random.integers(3, size=count)
    scores[np.arange(count), labels] += 1
    if multi_label:
        labels = random.random((count, 3)) < 0.4
    names = tuple(f"{seed}/{number}.jpg" for number in range(count))
    return Predictions(scores, labels, names, multi_label)


@pytest.fixture(scope="module")
def folds():
    return {number: predict(30 + 5 * number, number) for number in (1, 2, 3)}


def test_metrics_are_those_of_scikit_learn(folds):
    result, losses = compute_fold_metrics(folds, CLASSES, Objective(), EvaluationOptions(2, 200))
    pooled, fold_of = pool_predictions(folds)
    assert np.bincount(fold_of).tolist() == [0, 35, 40, 45]

    def compute(predictions):
        labels, probabilities = predictions.labels, predictions.probabilities()
        return {
            "accuracy": sklearn.metrics.accuracy_score(labels, predictions.classes),
            "loss": sklearn.metrics.log_loss(labels, probabilities),
            "macro_f1": sklearn.metrics.f1_score(labels, predictions.classes, average="macro"),
            "macro_roc_auc": sklearn.metrics.roc_auc_score(
                labels, probabilities, multi_class="ovr"
            ),
        }

    by_fold = [compute(each) for each in folds.values()]
    for name, value in compute(pooled).items():
        found = result["metrics"][name]
        assert found["pooled"] == pytest.approx(value, rel=1e-5)
        assert found["pooled_interval"][0] < value < found["pooled_interval"][1]
        assert found["mean"] == pytest.approx(np.mean([each[name] for each in by_fold]), rel=1e-5)
    assert losses.mean() == pytest.approx(result["metrics"]["loss"]["pooled"])
    lines = list(format_fold_metrics(result))
    assert len(lines) == 1 + len(result["metrics"])


def test_multi_label_folds():
    folds = {number: predict(30, number, multi_label=True) for number in (2, 5)}
    options = EvaluationOptions(2, 0)
    result, losses = compute_fold_metrics(folds, CLASSES, MultiLabelObjective(), options)
    pooled, fold_of = pool_predictions(folds)
    assert (len(losses), set(fold_of)) == (60, {2, 5})
    wanted = (pooled.labels == (pooled.scores > 0)).all(1).mean()
    assert result["metrics"]["exact_match"]["pooled"] == pytest.approx(wanted)
