"""Batch prediction on Apache Beam: files in, shards of result lines out, for `run.py predict`.

The launcher puts the networks into the staging folder of the results, so that all workers predict
with the same ones, whether they see the launcher's disk or not, and even if a training replaces the
snapshot meanwhile. Workers find the files, classify them like the local command, and write shards.

Nothing here imports TensorFlow: in a worker it is started by the first model that is loaded.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from library.beam.prediction_folder import ShardItem, ShardWriter, shard_of
from library.beam.prediction_job import PredictionJob, StagedNetwork
from library.dataset.locations import MemoryLocation
from library.dataset.sources.base import LabeledFile, is_table
from library.dataset.storage import is_remote
from library.prediction.image_paths import find_images

# Batches of the network in one of the pipeline: while the network runs, the images of the next
# batches are prepared.
_BATCHES = 4
# The largest sum of files that were read already, from a compressed tar, in a batch.
_MAX_BYTES = 128 << 20
# Paths that one worker looks into.
_PATHS = 256
# The number of a shard, and what belongs into it.
_Numbered = tuple[int, ShardItem]


class StagedNetworkHandler(ModelHandler[LabeledFile, _Numbered, Any]):
    """Predicts files with staged networks, which each worker process loads once.

    Args:
        job: What to predict.
        staged: The networks.
        shards: Number of files of results.
    """

    def __init__(self, job: PredictionJob, staged: StagedNetwork, shards: int) -> None:
        super().__init__()
        self._job, self._staged, self._shards = job, staged, shards

    def load_model(self) -> Any:
        """Return a LoadedNetwork."""
        if "tensorflow" not in sys.modules:  # Otherwise this is the launcher.
            self._job.start_tensorflow()
        from library.beam.staged_network import LoadedNetwork

        return LoadedNetwork(self._staged, self._job.batch_size)

    def run_inference(
        self, batch: Sequence[LabeledFile], model: Any, inference_args: Any = None
    ) -> Iterator[_Numbered]:
        """Yield a line for each file."""
        for name, line, message in model.predict(batch):
            yield shard_of(name, self._shards), (line, message)

    def get_num_bytes(self, batch: Sequence[LabeledFile]) -> int:
        """Return the size of the files."""
        return sum(each.size for each in batch)


def find_batches(
    paths: Sequence[bytes], folder: str, job: PredictionJob
) -> Iterator[list[LabeledFile]]:
    """Yield the files in some paths in batches.

    Beam's own batches are not used: its Dask runner loses what a step returns at the end of a
    bundle, and so each last batch (apply_dofn_to_bundle, Beam 2.77).

    Args:
        paths: Some of the job's paths, encoded as names of files are: they need not be UTF-8.
        folder: The launcher's working directory, which a worker's may differ from.
        job: The job.
    """
    batch: list[LabeledFile] = []
    size = 0
    for path in paths:
        for file in find_files(os.fsdecode(path), folder, job.columns):
            batch.append(file)
            size += file.size if isinstance(file.location, MemoryLocation) else 0
            if len(batch) == _BATCHES * job.batch_size or size > _MAX_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def find_files(path: str, folder: str, columns: Sequence[str]) -> Iterator[LabeledFile]:
    """Yield the files in a path, with the names that the local command gives them.

    Args:
        path: One of a job's paths.
        folder: The launcher's working directory.
        columns: Of CSV files.
    """
    if is_remote(path) or Path(path).is_absolute():
        yield from find_images([path], columns)
        return
    for file in find_images([str(Path(folder, path))], columns):
        # Those in a CSV file have the names that it lists.
        name = file.name if is_table(Path(path)) else file.name.removeprefix(f"{folder}/")
        yield file._replace(name=name)


def add_steps(
    pipeline: beam.Pipeline, job: PredictionJob, staged: StagedNetwork, writer: ShardWriter
) -> None:
    """Add the steps of a job to a pipeline.

    Args:
        pipeline: The pipeline.
        job: What to predict.
        staged: The networks.
        writer: Writes the shards into the staging folder.
    """
    find = partial(find_batches, folder=str(Path.cwd()), job=job)
    paths = [os.fsencode(each) for each in job.paths]
    batches = (
        pipeline
        | "Paths" >> beam.Create([paths[at : at + _PATHS] for at in range(0, len(paths), _PATHS)])
        | "FindFiles" >> beam.FlatMap(find)
        # Spreads the files, which one worker has found, over all of them.
        | "Spread" >> beam.Reshuffle()
    )
    handler = StagedNetworkHandler(job, staged, writer.shards)
    lines = batches | "Predict" >> RunInference(handler.with_no_batching())
    counts = batches | "Count" >> beam.Map(lambda batch: (0, len(batch)))
    # Each shard is written, even one that gets no line.
    shards = pipeline | "Shards" >> beam.Create([(number, 0) for number in range(writer.shards)])
    _ = (
        (lines, counts, shards)
        | "AllItems" >> beam.Flatten()
        | "ByShard" >> beam.GroupByKey()
        | "WriteShards" >> beam.Map(_write_shard, writer)
        | "ShardList" >> beam.GroupByKey()
        | "WriteList" >> beam.Map(_write_list, writer)
    )


def _write_shard(shard: tuple[int, Iterable[ShardItem]], writer: ShardWriter) -> tuple[None, Any]:
    return None, writer.write(*shard)


def _write_list(shards: tuple[None, Iterable[Any]], writer: ShardWriter) -> None:
    writer.write_list(shards[1])
