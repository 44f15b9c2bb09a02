"""Format predictions as lines of CSV or JSON."""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from library.errors import printable
from library.prediction.calibrate import choose_classes
from library.prediction.preprocess import Prediction

FORMATS = ("csv", "jsonl")


@dataclass(frozen=True)
class PredictionFormatter:
    """Formats each prediction as one line.

    Attributes:
        classes: The class names in label order.
        top_k: How many of the most likely classes to list.
        format: One of FORMATS.
        threshold: The lowest probability to answer with: see `choose_classes`.
        multi_label: Whether an image may have several classes; CSV joins them with "|".
        embedding_size: Length of an embedding; CSV has a column for each of its numbers.
        has_unknown_score: Whether predictions have the score of a detector.
    """

    classes: tuple[str, ...]
    top_k: int
    format: str = "csv"
    threshold: float | None = None
    multi_label: bool = False
    embedding_size: int = 0
    has_unknown_score: bool = False

    def header(self) -> list[str]:
        """Return the lines before the first prediction: the column names of a CSV."""
        if self.format != "csv":
            return []
        ranks = range(1, self._top_k + 1)
        top = [f"{column}_{rank}" for rank in ranks for column in ("class", "probability")]
        embedding = [f"embedding_{number}" for number in range(1, self.embedding_size + 1)]
        unknown = ["unknown_score"] * self.has_unknown_score
        return [_csv_line(["file", "class", "probability", *top, "error", *unknown, *embedding])]

    def line(self, prediction: Prediction) -> str:
        """Return the line of a prediction."""
        is_csv = self.format == "csv"
        # A name may hold control characters, or bytes that are not UTF-8.
        name = printable(prediction.name)
        probabilities = prediction.probabilities
        if probabilities is None:
            if not is_csv:
                return _json_line({"file": name, "error": prediction.error})
            blank = [""] * (2 + 2 * self._top_k)
            more = [""] * (self.has_unknown_score + self.embedding_size)
            return _csv_line([name, *blank, prediction.error, *more])
        top = [
            {"class": self.classes[index], "probability": round(float(probabilities[index]), 6)}
            for index in (-probabilities).argsort(kind="stable")[: self._top_k]
        ]
        probability = top[0]["probability"]
        score = prediction.unknown_score
        answer = choose_classes(
            probabilities, self.classes, self.threshold, self.multi_label, score
        )
        unknown = {} if score is None else {"unknown_score": round(float(score), 6)}
        # The shortest text from which each float32 can be read back exactly.
        embedding: list[str] = []
        if self.embedding_size and prediction.embedding is not None:
            embedding = prediction.embedding.astype(str).tolist()
        if is_csv:
            cell = answer if isinstance(answer, str) else "|".join(answer)
            cells = [value for each in top for value in each.values()]
            return _csv_line([name, cell, probability, *cells, "", *unknown.values(), *embedding])
        key = "classes" if self.multi_label else "class"
        content = {"file": name, key: answer, "probability": probability, "top": top, **unknown}
        if embedding:
            content["embedding"] = [float(each) for each in embedding]
        return _json_line(content)

    @property
    def _top_k(self) -> int:
        return min(self.top_k, len(self.classes))


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    # Each on one line, also the class names of snapshots from before these were checked.
    one_line = [printable(each) if isinstance(each, str) else each for each in cells]
    csv.writer(text, lineterminator="").writerow(one_line)
    return text.getvalue()


def _json_line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)
