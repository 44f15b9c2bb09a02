import csv
import json
from dataclasses import replace

import numpy as np

from library.prediction.output import Answers
from library.prediction.preprocess import Prediction

CLASSES = ("cat", 'a "b", c', "日本")
CERTAIN = Prediction("x,1.png", np.array([0.05, 0.8, 0.15], np.float32))
DOUBTFUL = Prediction("2.png", np.array([0.4, 0.3, 0.3], np.float32))
BROKEN = Prediction("b\udcff\n.png", None, "is empty")


def rows(answers, *predictions):
    lines = [*answers.header(), *map(answers.line, predictions)]
    assert not any("\n" in each for each in lines)
    return list(csv.DictReader(lines))


def test_a_table_has_a_row_for_each_file():
    first, second, broken = rows(Answers(CLASSES, top_k=2), CERTAIN, DOUBTFUL, BROKEN)
    assert (first["file"], first["class"], first["probability"]) == ("x,1.png", 'a "b", c', "0.8")
    assert (first["class_2"], first["probability_2"], first["error"]) == ("日本", "0.15", "")
    assert second["class"] == "cat"
    assert (broken["file"], broken["class"], broken["error"]) == (r"b\udcff\n.png", "", "is empty")


def test_below_the_threshold_the_answer_is_unknown_and_the_classes_are_told():
    first, second = rows(Answers(CLASSES, top_k=9, threshold=0.5), CERTAIN, DOUBTFUL)
    assert first["class"] == 'a "b", c'
    assert (second["class"], second["class_1"], second["probability"]) == ("unknown", "cat", "0.4")
    assert "class_4" not in second


def test_json_lines_hold_the_same():
    answers = Answers(CLASSES, "jsonl", top_k=2, threshold=0.5)
    assert answers.header() == []
    assert json.loads(answers.line(CERTAIN)) == {
        "file": "x,1.png",
        "class": 'a "b", c',
        "probability": 0.8,
        "top": [
            {"class": 'a "b", c', "probability": 0.8},
            {"class": "日本", "probability": 0.15},
        ],
    }
    assert json.loads(answers.line(DOUBTFUL))["class"] == "unknown"
    assert json.loads(answers.line(BROKEN)) == {"file": r"b\udcff\n.png", "error": "is empty"}


def test_embeddings_are_told_to_the_last_bit():
    embedding = np.random.default_rng(0).normal(size=5).astype(np.float32) * 10.0 ** np.arange(5)
    embedding = np.float32([*embedding.astype(np.float32), 0.1, 1e-30])
    certain = replace(CERTAIN, embedding=embedding)
    answers = Answers(CLASSES, "jsonl", embedding_size=7)
    told = json.loads(answers.line(certain))["embedding"]
    assert np.array_equal(np.float32(told), embedding)
    assert told[5] == 0.1
    assert "embedding" not in json.loads(answers.line(BROKEN))
    assert "embedding" not in json.loads(Answers(CLASSES, "jsonl").line(CERTAIN))
    row, broken = rows(Answers(CLASSES, top_k=1, embedding_size=7), certain, BROKEN)
    assert list(row)[-3:] == ["embedding_5", "embedding_6", "embedding_7"]
    numbers = [row[f"embedding_{number}"] for number in range(1, 8)]
    assert np.array_equal(np.float32(numbers), embedding)
    assert (broken["error"], broken["embedding_1"], broken["embedding_7"]) == ("is empty", "", "")


def test_where_several_may_be_right_all_above_the_threshold_are_the_answer():
    (row,) = rows(Answers(CLASSES, multi_label=True, threshold=0.3), DOUBTFUL)
    assert row["class"] == 'cat|a "b", c|日本'
    answers = Answers(CLASSES, "jsonl", multi_label=True)
    assert json.loads(answers.line(DOUBTFUL))["classes"] == []
