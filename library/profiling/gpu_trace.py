"""How busy a GPU is during some steps, by TensorFlow's profiler."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

_PLANE, _LINE, _COPY = "/device:GPU:", "Stream", "memcpy"


@dataclass(frozen=True)
class GpuShares:
    """Shares of the time in which the GPUs, in the mean, run kernels, and copy to or from memory.

    Both may happen at once.
    """

    kernels: float
    copies: float


def trace_gpus(work: Callable[[], object]) -> GpuShares | None:
    """Return how busy the GPUs are while `work` runs; None if TensorFlow can't tell."""
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        try:
            tf.profiler.experimental.start(folder)
        except (OSError, tf.errors.OpError):  # Another profiler is at work.
            return None
        try:
            work()
        finally:
            tf.profiler.experimental.stop()
        paths = Path(folder).rglob("*.xplane.pb")
        return read_shares(path.read_bytes() for path in paths)


def read_shares(contents: Iterable[bytes]) -> GpuShares | None:
    """Return the shares out of serialized XSpace messages; None if they have no GPU's events.

    The lines of a GPU's plane are its streams, beside lines that sum these up; their events have
    an offset and a duration in picoseconds. See tsl/profiler/protobuf/xplane.proto.
    """
    # Not at the top: it loads TensorFlow's module of protocol buffers.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    shares = []
    for content in contents:
        for plane in xplane_pb2.XSpace.FromString(content).planes:
            if plane.name.startswith(_PLANE) and (found := _read_plane(plane)):
                shares.append(found)
    if not shares:
        return None
    kernels, copies = (sum(each) / len(shares) for each in zip(*shares, strict=True))
    return GpuShares(kernels, copies)


def _read_plane(plane: Any) -> tuple[float, float] | None:
    spans: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    for line in plane.lines:
        if not line.name.startswith(_LINE):
            continue
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name.lower()
            start = 1000 * line.timestamp_ns + event.offset_ps
            spans[_COPY in name].append((start, start + event.duration_ps))
    every = spans[False] + spans[True]
    if not every:
        return None
    whole = max(end for _, end in every) - min(start for start, _ in every)
    return _covered(spans[False]) / max(1, whole), _covered(spans[True]) / max(1, whole)


def _covered(spans: list[tuple[int, int]]) -> int:
    """Return the length of the union of spans."""
    length = reached = 0
    for start, end in sorted(spans):
        length += max(0, end - max(start, reached))
        reached = max(reached, end)
    return length
