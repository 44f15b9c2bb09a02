"""The networks of a batch prediction, written by the launcher and loaded by its workers."""

import json
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from library.beam.prediction_job import StagedNetwork
from library.beam.shared_folder import SharedFolder
from library.dataset.sources.base import LabeledFile
from library.errors import printable
from library.prediction.calibrate import CalibratedSnapshot
from library.prediction.ensemble import combine_snapshots
from library.prediction.image_pool import ImagePool
from library.prediction.output import PredictionFormatter
from library.prediction.predictor import Outputs, Predictor
from library.prediction.preprocess import ImagePreprocessor, predict_files
from library.prediction.unknown_score import UnknownDetector
from library.saving.snapshots import DATA, read_snapshot, write_snapshot

_FILE = "network.tar"
_BANK = "bank.npy"


def stage_network(
    folder: SharedFolder,
    calibrated: CalibratedSnapshot,
    formatter: PredictionFormatter,
    *,
    xla: bool,
) -> StagedNetwork:
    """Write networks into a file of a folder.

    Args:
        folder: The folder.
        calibrated: A snapshot or an ensemble, with what tells unknown images.
        formatter: Formats the predictions.
        xla: Compile the network with XLA.

    Raises:
        UserError: The file can't be written.
    """
    snapshot, detector = calibrated.snapshot, calibrated.detector
    members = snapshot.members or (snapshot,)
    with tempfile.TemporaryDirectory() as local:
        for number, each in enumerate(members):
            data = {DATA: json.dumps(each.data)}
            path = Path(local, str(number))
            write_snapshot(path, each.network, each.classes, each.metrics, data)
        if detector:
            np.save(Path(local, _BANK), detector.bank)
        with folder.new_path(_FILE) as file, tarfile.open(file, "w") as tar:
            tar.add(local, "")
    fields = asdict(detector) if detector else None
    if fields:
        del fields["bank"]
    temperature = calibrated.temperature or 1.0
    return StagedNetwork(
        folder, len(members), snapshot.views, temperature, fields, asdict(formatter), xla
    )


class LoadedNetwork:
    """Predicts files like the local command, in a worker.

    Args:
        staged: The networks.
        batch_size: Images per batch.
    """

    def __init__(self, staged: StagedNetwork, batch_size: int) -> None:
        detector = None
        with tempfile.TemporaryDirectory() as local:
            with staged.folder.open(_FILE) as file, tarfile.open(fileobj=file) as tar:
                tar.extractall(local, filter="data")
            snapshots = [read_snapshot(Path(local, str(n))) for n in range(staged.snapshots)]
            if staged.detector is not None:
                detector = UnknownDetector(**staged.detector, bank=np.load(Path(local, _BANK)))
        snapshot = combine_snapshots(snapshots, views=staged.views)
        self._batch_size = batch_size
        self._formatter = PredictionFormatter(**staged.formatter)
        self._predictor = _PaddingPredictor(
            [snapshot],
            [staged.temperature],
            embedding=bool(self._formatter.embedding_size),
            detector=detector,
            xla=staged.xla,
        )
        self._predictor.batch_size = batch_size
        pool = ImagePool()
        self._preprocessor = ImagePreprocessor.for_snapshot(snapshot, pool.convert)
        # Beam drops a model without telling it.
        weakref.finalize(self, pool.__exit__, None, None, None)

    def predict(self, files: Sequence[LabeledFile]) -> Iterator[tuple[str, bytes, str | None]]:
        """Yield (name, line, message if the file is unreadable) for each file."""
        found = predict_files(files, self._preprocessor, self._predictor, self._batch_size)
        with closing(found):
            for each in found:
                message = printable(f"{each.name} {each.error}") if each.error else None
                line = self._formatter.line(each).encode("utf-8", "backslashreplace")
                yield each.name, line, message


class _PaddingPredictor(Predictor):
    """Fills up incomplete batches: how files are divided into batches changes no answer.

    With another number of images, kernels may add in another order.
    """

    batch_size = 1

    def run(self, pixels: np.ndarray) -> Outputs:
        count = len(pixels)
        missing = max(0, self.batch_size - count)
        padded = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), pixels.dtype)])
        # An Outputs without a detector has no unknown scores, of which any slice is empty.
        return Outputs(*(each[:count] for each in super().run(padded)))
