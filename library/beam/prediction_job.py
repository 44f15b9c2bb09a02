"""What a batch prediction sends to its workers, picklable and without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from library.beam.shared_folder import SharedFolder


@dataclass(frozen=True)
class PredictionJob:
    """What to predict, and how.

    Attributes:
        paths: Files, folders, archives, patterns and URLs, as `find_images` takes them.
        columns: Of CSV files, see `find_images`.
        batch_size: Images per batch of the network.
        start_tensorflow: Starts TensorFlow in a worker.
    """

    paths: Sequence[str]
    columns: Sequence[str]
    batch_size: int
    start_tensorflow: Callable[[], None]


@dataclass(frozen=True)
class StagedNetwork:
    """The networks of a prediction, in a file that the workers can read, and how to use them.

    Attributes:
        folder: Where the file is: a tar of the snapshots `0`, `1`, … and the detector's embeddings.
        snapshots: How many there are.
        views: Views per image to average over.
        temperature: What to divide the scores by.
        detector: Fields of an UnknownDetector without its embeddings; None: no detector.
        formatter: Fields of a PredictionFormatter.
        xla: Compile the network with XLA.
    """

    folder: SharedFolder
    snapshots: int
    views: int
    temperature: float
    detector: Mapping[str, Any] | None
    formatter: Mapping[str, Any]
    xla: bool
