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

from library.beam.prediction_folder import ShardWriter, shard_of
from library.beam.prediction_job import PredictionJob, StagedNetwork
from library.dataset.locations import MemoryLocation
from library.dataset.sources.base import LabeledFile, is_table
from library.dataset.storage import is_remote
from library.prediction.image_paths import find_images

# Batches of the network that a worker predicts at a time: while the network runs, the images of the
# next batches are prepared.
_BATCHES = 8
# A file that was read already, from a compressed tar, counts as one more for each of these bytes.
_BYTES_PER_ELEMENT = 1 << 20
# The number of a shard, and what ShardWriter writes into it.
ResultLine = tuple[int, tuple[bytes, str | None]]


class StagedNetworkHandler(ModelHandler[LabeledFile, ResultLine, Any]):
    """Predicts files with staged networks, which each worker process loads once.

    Args:
        job: What to predict.
        staged: The networks.
        shards: Number of files of results.
    """

    def __init__(self, job: PredictionJob, staged: StagedNetwork, shards: int) -> None:
        size = _BATCHES * job.batch_size
        super().__init__(min_batch_size=size, max_batch_size=size, element_size_fn=_size_of)
        self._job, self._staged, self._shards = job, staged, shards

    def load_model(self) -> Any:
        """Return a LoadedNetwork."""
        if "tensorflow" not in sys.modules:  # Otherwise this is the launcher.
            self._job.start_tensorflow()
        from library.beam.staged_network import LoadedNetwork

        return LoadedNetwork(self._staged, self._job.batch_size)

    def run_inference(
        self, batch: Sequence[LabeledFile], model: Any, inference_args: Any = None
    ) -> Iterator[ResultLine]:
        """Yield a line for each file."""
        for name, line, message in model.predict(batch):
            yield shard_of(name, self._shards), (line, message)

    def get_num_bytes(self, batch: Sequence[LabeledFile]) -> int:
        """Return the size of the files."""
        return sum(each.size for each in batch)


def _size_of(file: LabeledFile) -> int:
    """Return how many elements of a batch a file counts as."""
    location = file.location
    content = location.content if isinstance(location, MemoryLocation) else b""
    return 1 + len(content) // _BYTES_PER_ELEMENT


def find_files(path: bytes, folder: str, columns: Sequence[str]) -> Iterator[LabeledFile]:
    """Yield the files in a path, with the names that the local command gives them.

    Args:
        path: One of a job's paths, encoded as the names of files are: it need not be UTF-8.
        folder: The launcher's working directory, which a worker's may differ from.
        columns: Of CSV files.
    """
    given = os.fsdecode(path)
    if is_remote(given) or Path(given).is_absolute():
        yield from find_images([given], columns)
        return
    for file in find_images([str(Path(folder, given))], columns):
        # Those in a CSV file have the names that it lists.
        name = file.name if is_table(Path(given)) else file.name.removeprefix(f"{folder}/")
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
    find = partial(find_files, folder=str(Path.cwd()), columns=job.columns)
    lines = (
        pipeline
        | "Paths" >> beam.Create([os.fsencode(each) for each in job.paths])
        | "FindFiles" >> beam.FlatMap(find)
        # Spreads the files, which one worker has found, over all of them.
        | "Spread" >> beam.Reshuffle()
        | "Predict" >> RunInference(StagedNetworkHandler(job, staged, writer.shards))
    )
    # Each shard is written, even one that gets no line.
    shards = pipeline | "Shards" >> beam.Create([(number, None) for number in range(writer.shards)])
    _ = (
        (lines, shards)
        | "AllLines" >> beam.Flatten()
        | "ByShard" >> beam.GroupByKey()
        | "WriteShards" >> beam.Map(_write_shard, writer)
        | "ShardList" >> beam.GroupByKey()
        | "WriteList" >> beam.Map(_write_list, writer)
    )


def _write_shard(shard: tuple[int, Iterable[Any]], writer: ShardWriter) -> tuple[None, Any]:
    number, lines = shard
    return None, writer.write(number, (each for each in lines if each is not None))


def _write_list(shards: tuple[None, Iterable[Any]], writer: ShardWriter) -> None:
    writer.write_list(shards[1])
