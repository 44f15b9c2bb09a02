import csv
import json
from dataclasses import replace

import numpy as np

from library.prediction.output import PredictionFormatter
from library.prediction.preprocess import Prediction

CLASSES = ("cat", 'a "b", c', "日本")
CERTAIN = Prediction("x,1.png", np.array([0.05, 0.8, 0.15], np.float32))
DOUBTFUL = Prediction("2.png", np.array([0.4, 0.3, 0.3], np.float32))
BROKEN = Prediction("b\udcff\n.png", None, "is empty")


def rows(formatter, *predictions):
    lines = [*formatter.header(), *map(formatter.line, predictions)]
    assert not any("\n" in each for each in lines)
    return list(csv.DictReader(lines))


def test_csv_has_a_row_for_each_file():
    first, second, broken = rows(PredictionFormatter(CLASSES, top_k=2), CERTAIN, DOUBTFUL, BROKEN)
    assert (first["file"], first["class"], first["probability"]) == ("x,1.png", 'a "b", c', "0.8")
    assert (first["class_2"], first["probability_2"], first["error"]) == ("日本", "0.15", "")
    assert second["class"] == "cat"
    assert (broken["file"], broken["class"], broken["error"]) == (r"b\udcff\n.png", "", "is empty")


def test_csv_keeps_a_line_for_a_class_name_with_a_line_break():
    (row,) = rows(PredictionFormatter(("cat", "a\nb", "c\u2028"), top_k=3), CERTAIN)
    assert (row["class"], row["class_2"]) == (r"a\nb", r"c\u2028")


def test_csv_class_is_unknown_below_the_threshold():
    first, second = rows(PredictionFormatter(CLASSES, top_k=9, threshold=0.5), CERTAIN, DOUBTFUL)
    assert first["class"] == 'a "b", c'
    assert (second["class"], second["class_1"], second["probability"]) == ("unknown", "cat", "0.4")
    assert "class_4" not in second


def test_jsonl_has_an_object_for_each_file():
    formatter = PredictionFormatter(CLASSES, 2, "jsonl", threshold=0.5)
    assert formatter.header() == []
    assert json.loads(formatter.line(CERTAIN)) == {
        "file": "x,1.png",
        "class": 'a "b", c',
        "probability": 0.8,
        "top": [
            {"class": 'a "b", c', "probability": 0.8},
            {"class": "日本", "probability": 0.15},
        ],
    }
    assert json.loads(formatter.line(DOUBTFUL))["class"] == "unknown"
    assert json.loads(formatter.line(BROKEN)) == {"file": r"b\udcff\n.png", "error": "is empty"}


def test_embeddings_read_back_as_the_same_float32():
    embedding = np.random.default_rng(0).normal(size=5).astype(np.float32) * 10.0 ** np.arange(5)
    embedding = np.float32([*embedding.astype(np.float32), 0.1, 1e-30])
    certain = replace(CERTAIN, embedding=embedding)
    formatter = PredictionFormatter(CLASSES, 5, "jsonl", embedding_size=7)
    values = json.loads(formatter.line(certain))["embedding"]
    assert np.array_equal(np.float32(values), embedding)
    assert values[5] == 0.1
    assert "embedding" not in json.loads(formatter.line(BROKEN))
    assert "embedding" not in json.loads(PredictionFormatter(CLASSES, 5, "jsonl").line(CERTAIN))
    row, broken = rows(PredictionFormatter(CLASSES, top_k=1, embedding_size=7), certain, BROKEN)
    assert list(row)[-3:] == ["embedding_5", "embedding_6", "embedding_7"]
    numbers = [row[f"embedding_{number}"] for number in range(1, 8)]
    assert np.array_equal(np.float32(numbers), embedding)
    assert (broken["error"], broken["embedding_1"], broken["embedding_7"]) == ("is empty", "", "")


def test_multi_label_answer_is_every_class_above_the_threshold():
    (row,) = rows(PredictionFormatter(CLASSES, 5, multi_label=True, threshold=0.3), DOUBTFUL)
    assert row["class"] == 'cat|a "b", c|日本'
    formatter = PredictionFormatter(CLASSES, 5, "jsonl", multi_label=True)
    assert json.loads(formatter.line(DOUBTFUL))["classes"] == []


def test_unknown_score_decides_the_class():
    known, unknown = (replace(CERTAIN, unknown_score=np.float32(each)) for each in (-0.5, 0.25))
    formatter = PredictionFormatter(CLASSES, 1, has_unknown_score=True, embedding_size=1)
    found = rows(formatter, replace(known, embedding=np.ones(1)), unknown, BROKEN)
    assert [each["class"] for each in found] == ['a "b", c', "unknown", ""]
    assert [each["unknown_score"] for each in found] == ["-0.5", "0.25", ""]
    assert [each["error"] for each in found] == ["", "", "is empty"]
    answer = json.loads(PredictionFormatter(CLASSES, 1, "jsonl").line(unknown))
    assert (answer["class"], answer["unknown_score"]) == ("unknown", 0.25)
    assert answer["top"][0]["class"] == 'a "b", c'
