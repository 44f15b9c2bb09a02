"""The run of one fold: whether it belongs to the others, and its stored predictions.

What is stored is of use only as long as the snapshot, the settings and the data are those that it
was made with.
"""

import contextlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.cross_validation.fold_predictions import FoldOutputs
from library.dataset.manifest import Manifest
from library.evaluation.predictions import Predictions
from library.files import SEAL, current_folder, new_file, sha256_of
from library.training.resume import check_same_training

_FILE = "out_of_fold.npz"
_FORMAT = "predictions of a fold, version 1"


@dataclass(frozen=True)
class FoldRun:
    """The run that validates on one fold.

    Attributes:
        number: The fold's number, from 1.
        run_dir: Folder of the run.
        checkpoints: Folder of its checkpoints.
        best: Folder of its best snapshot.
        splits: The training and the validation split.
        settings: Those that decide what is learned, as JSON values.
    """

    number: int
    run_dir: Path
    checkpoints: Path
    best: Path
    splits: tuple[Manifest, Manifest]
    settings: Mapping[str, Any]

    def check(self) -> None:
        """Check that what was trained so far has these settings and this data.

        Raises:
            CheckpointError: It has other data.
            SettingsError: It has other settings.
        """
        fingerprint = self.splits[0].fingerprint
        folders = self.checkpoints, self.best
        check_same_training(self.run_dir, folders, self.settings, fingerprint)

    def read_outputs(self) -> FoldOutputs | None:
        """Return the outputs for the fold if the run is finished, else None."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with np.load(self.run_dir / _FILE, allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                labels, scores = arrays["labels"], arrays["scores"]
                embeddings = arrays.get("embeddings")
            if header["format"] == _FORMAT and header["of"] == self._describe():
                names = tuple(header["names"])
                return FoldOutputs(Predictions(scores, labels, names, labels.ndim == 2), embeddings)
        return None

    def write_outputs(self, outputs: FoldOutputs) -> None:
        """Store the outputs of the finished run, whole or not at all."""
        predictions, embeddings = outputs
        arrays = {"labels": predictions.labels, "scores": predictions.scores[:]}
        if embeddings is not None:
            arrays["embeddings"] = embeddings
        header = {"format": _FORMAT, "names": predictions.names, "of": self._describe()}
        with new_file(self.run_dir / _FILE) as file:
            np.savez(
                file,
                allow_pickle=False,
                header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                **arrays,
            )

    def _describe(self) -> dict[str, Any]:
        """Return what the outputs depend on, as JSON values."""
        fingerprints = [each.fingerprint for each in self.splits]
        snapshot = sha256_of(current_folder(self.best) / SEAL)
        return {"snapshot": snapshot, "data": fingerprints, "settings": dict(self.settings)}
