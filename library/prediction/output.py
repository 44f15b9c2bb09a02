"""Predictions as lines of text: CSV, or a JSON object a line."""

import csv
import io
import json

from library.errors import printable
from library.prediction.calibrate import choose_answer

FORMATS = ("csv", "jsonl")


class Answers:
    """Turns Predictions into lines.

    `top_k` classes are told of each image, likeliest first. `threshold` and `several` are those of
    choose_answer; in a CSV several classes are joined by "|". Embeddings of `embedding_size`, if
    any, are told so that they read back as the same float32: in a CSV a column for each number.
    """

    def __init__(
        self, classes, kind="csv", top_k=5, threshold=None, multi_label=False, embedding_size=0
    ):
        self.classes = classes
        self._top_k = min(top_k, len(classes))
        self._is_csv = kind == "csv"
        self._several = multi_label
        self._threshold = threshold
        self._embedding_size = embedding_size

    def header(self):
        """Return the lines before the first image: that of a CSV, which names its columns."""
        if not self._is_csv:
            return []
        ranks = range(1, self._top_k + 1)
        top = [f"{word}_{rank}" for rank in ranks for word in ("class", "probability")]
        embedding = [f"embedding_{number}" for number in range(1, self._embedding_size + 1)]
        return [_csv_line(["file", "class", "probability", *top, "error", *embedding])]

    def line(self, prediction):
        """Return the line for a Prediction."""
        # A name may hold anything, bytes that are no UTF-8 too.
        name = printable(prediction.name)
        if prediction.probabilities is None:
            if not self._is_csv:
                return _json_line({"file": name, "error": prediction.reason})
            blank = [""] * self._embedding_size
            return _csv_line([name, *[""] * (2 + 2 * self._top_k), prediction.reason, *blank])
        top = [
            (self.classes[each], round(float(prediction.probabilities[each]), 6))
            for each in (-prediction.probabilities).argsort(kind="stable")[: self._top_k]
        ]
        probabilities, probability = prediction.probabilities, top[0][1]
        answer = choose_answer(probabilities, self.classes, self._threshold, self._several)
        # The fewest digits that tell each float32 from its neighbors.
        embedding = prediction.embedding.astype(str).tolist() if self._embedding_size else []
        if self._is_csv:
            answer = "|".join(answer) if self._several else answer
            told = [name, answer, probability, *(x for pair in top for x in pair), ""]
            return _csv_line([*told, *embedding])
        ranked = [{"class": text, "probability": value} for text, value in top]
        word = "classes" if self._several else "class"
        told = {"file": name, word: answer, "probability": probability, "top": ranked}
        if embedding:
            told["embedding"] = [float(each) for each in embedding]
        return _json_line(told)


def _csv_line(cells):
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _json_line(content):
    return json.dumps(content, ensure_ascii=False)
