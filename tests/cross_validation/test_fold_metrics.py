import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from library.cross_validation.fold_metrics import (
    compute_fold_metrics,
    format_fold_metrics,
    pool_predictions,
    summarize_folds,
    t_quantile,
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


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 99])
def test_t_quantile_is_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_interval_of_the_mean_is_that_of_nadeau_and_bengio():
    values = [0.9, 0.92, 0.95, 0.89, 0.93]
    found = summarize_folds(values)
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    # As scikit-learn's example of comparing models writes it.
    scale = deviation * np.sqrt(1 / 5 + 100 / 400)
    wanted = stats.t.interval(0.95, 4, loc=mean, scale=scale)
    assert (found["mean"], found["standard_deviation"]) == pytest.approx((mean, deviation))
    assert found["mean_interval"] == pytest.approx(wanted)


def test_undefined_values_and_bounds():
    assert summarize_folds([None, 0.5])["mean_interval"] is None
    assert summarize_folds([None])["mean"] is None
    assert summarize_folds([1.0, 0.9])["mean_interval"] == (0, 1)
    assert summarize_folds([1.0, 0.9], is_share=False)["mean_interval"][1] > 1


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
