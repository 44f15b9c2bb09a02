from library.evaluation.table import format_metrics, number, overall_rows, words_of

ROW = {"images": 1200, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "roc_auc": 0.9, "pr_auc": None}
RESULT = {
    "loss": 0.25,
    "top_k_accuracy": 1.0,
    "macro_roc_auc": None,
    "top_k": 5,
    "intervals": {"loss": (0.2, 0.3), "macro_roc_auc": None},
    "confidence": 0.95,
    "absent": [],
    "classes": {"cat": ROW},
    "temperature": 1.5,
    "calibrated_ece": 0.01,
}


def test_a_table_of_measures_and_one_of_classes():
    lines = [*format_metrics(RESULT)]
    assert lines[0] == "measure                              value      95% interval"
    assert "loss                                0.2500  0.2000 to 0.3000" in lines
    assert "top-5 accuracy                      1.0000" in lines
    assert "macro ROC AUC                            -" in lines
    assert "temperature                         1.5000" in lines
    assert lines[-2:] == [
        "class  images  precision  recall      F1  ROC AUC  PR AUC",
        "cat     1,200     0.5000  1.0000  0.6667   0.9000       -",
    ]
    assert [words for words, _, _ in overall_rows(RESULT)][
        -1
    ] == "calibration error with temperature"


def test_what_is_absent_is_said_and_odd_names_stay_on_their_line():
    rows = {"a\nb": ROW, "gone": {**ROW, "f1": None}}
    lines = [*format_metrics({**RESULT, "classes": rows, "absent": ["gone"]})]
    assert any(line.startswith("a\\nb ") for line in lines)
    assert lines[-1] == "not in this split, and left out of the means over classes: gone"


def test_of_many_classes_the_worst_are_told():
    rows = {f"class {n}": {**ROW, "f1": 1 - n / 100} for n in range(40)}
    lines = [*format_metrics({**RESULT, "classes": rows, "absent": [*rows][:12]})]
    assert "the 30 of 40 classes with the lowest F1 (the report has all)" in lines
    assert any(line.startswith("class 39 ") for line in lines)
    assert not any(line.startswith("class 3 ") for line in lines)
    assert lines[-1].endswith("class 9 and 2 more")


def test_names_and_numbers():
    assert words_of("weighted_pr_auc") == "weighted PR AUC"
    assert words_of("exact_match") == "exact match"
    assert number(0.12345) == "0.1235"
