"""Experiment trackers: what `trackers` in project.yaml may name.

TensorBoard's files are written always; the trackers here get a run's settings, metrics and files
from a queue in its folder. They run in a process of their own (`python -m project.trackers`, which
the training starts), so they can neither slow it nor stop it: see library/tracking. To add one,
write a class like JsonLines and name it in TRACKERS.
"""

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from library.configuration.reader import Settings
from library.configuration.schema import DEFAULT
from library.errors import SettingsError, reason_of
from library.messages import choose
from library.tracking.delivery import trackers_of
from library.tracking.event_queue import EventQueue
from library.tracking.facts import find_machine
from library.tracking.sender import Sender, send_from_stdin
from library.tracking.tracker import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PRUNED,
    Metrics,
    Parameter,
    RejectedError,
    TrackedRun,
    Tracker,
)

logger = logging.getLogger(__name__)

_HERE = Path(__file__).resolve().parents[1]
SENDER = Sender("project.trackers")
# Tags with the hashes of the images of the two splits.
_DATA = "training_data", "validation_data"


class JsonLines(Tracker):
    """Writes `metrics.jsonl` in the run's folder: an example for a tracker of your own."""

    def __init__(self, run: TrackedRun) -> None:
        """Open the file; what was written, but not remembered, before a crash comes again."""
        super().__init__(run)
        self._path = run.folder / "metrics.jsonl"
        with self._path.open("ab") as file:
            file.truncate(run.memory.get("size", 0))

    def log_parameters(self, parameters: Mapping[str, Parameter], tags: Mapping[str, str]) -> None:
        """Write a line with all settings."""
        settings = {key: each._asdict() for key, each in parameters.items()}
        self._write({"parameters": settings, "tags": tags})

    def log_metrics(self, rows: Sequence[Metrics]) -> None:
        """Write a line for each row."""
        self._write(*({"step": row.step, "time": row.time, **row.values} for row in rows))

    def finish(self, status: str, ended: float) -> None:
        """Write how the run ended."""
        self._write({"status": status, "time": ended})

    def _write(self, *lines: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        self.run.memory["size"] = self._path.stat().st_size


class MLflow(Tracker):
    """MLflow, on the server that MLFLOW_TRACKING_URI names, or in a local file as it does itself.

    MLFLOW_EXPERIMENT_NAME names the experiment; without it, the runs of a search, of seeds or of
    folds are in an experiment of their own.
    """

    package, extra = "mlflow", "mlflow"
    _STATUS: ClassVar = {
        FINISHED: "FINISHED",
        FAILED: "FAILED",
        INTERRUPTED: "KILLED",
        PRUNED: "KILLED",
    }
    # What MLflow's pages show of a commit.
    _TAGS: ClassVar = {
        "git_commit": "mlflow.source.git.commit",
        "git_branch": "mlflow.source.git.branch",
        "user": "mlflow.user",
    }
    # Limits of a request.
    _MAX_METRICS, _MAX_PARAMETERS = 1000, 100

    @classmethod
    def check(cls) -> None:
        """Raise SettingsError if there is nowhere to write to."""
        # MLflow's default is a database, whose driver mlflow-skinny does without.
        if not os.environ.get("MLFLOW_TRACKING_URI") and find_spec("sqlalchemy") is None:
            raise SettingsError(
                "tracker mlflow: set MLFLOW_TRACKING_URI to the URL of a server; for a local file "
                "instead, install the whole package (pip install mlflow)"
            )

    def __init__(self, run: TrackedRun) -> None:
        """Find the run, or create it."""
        super().__init__(run)
        # Retries are the sender's.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        from mlflow import entities, tracking

        self._entities = entities
        uri = os.environ.get("MLFLOW_TRACKING_URI") or run.memory.get("tracking_uri")
        self._client = tracking.MlflowClient(uri)
        run.memory["tracking_uri"] = self._client.tracking_uri
        if "run_id" not in run.memory:
            run.memory["run_id"] = self._find_or_create()
        self._id = run.memory["run_id"]
        self._experiment_id = self._client.get_run(self._id).info.experiment_id

    @property
    def url(self) -> str | None:
        """The run's page, if a server shows it."""
        uri = self._client.tracking_uri
        if not uri.startswith("http"):
            return None
        return f"{uri}/#/experiments/{self._experiment_id}/runs/{self._id}"

    def log_parameters(self, parameters: Mapping[str, Parameter], tags: Mapping[str, str]) -> None:
        """Log parameters, and as tags where those that are not the default come from."""
        entities, known = self._entities, self._client.get_run(self._id).data.params
        texts = {key: _to_text(each.value) for key, each in parameters.items()}
        # MLflow refuses to change a parameter, as resuming with another setting does.
        changed = {f"changed.{k}": v for k, v in texts.items() if known.get(k, v) != v}
        sources = {
            f"source.{key}": each.source
            for key, each in parameters.items()
            if each.source != DEFAULT
        }
        renamed = {self._TAGS[key]: tags[key] for key in self._TAGS if key in tags}
        params = [entities.Param(key, texts[key]) for key in texts.keys() - known.keys()]
        # Without a source, its pages hide the commit.
        program = {"mlflow.source.name": "run.py", "mlflow.source.type": "LOCAL"}
        more = {**tags, **program, **renamed, **sources, **changed}
        tag_list = [entities.RunTag(key, value) for key, value in more.items()]
        with _rejections():
            for some in _chunks(params, self._MAX_PARAMETERS):
                self._client.log_batch(self._id, params=some)
            for some in _chunks(tag_list, self._MAX_PARAMETERS):
                self._client.log_batch(self._id, tags=some)
        self._client.update_run(self._id, status="RUNNING")

    def log_metrics(self, rows: Sequence[Metrics]) -> None:
        """Log metrics. The server keeps one of those that come again: their times are equal."""
        metrics = [
            self._entities.Metric(_allowed(name), value, int(1000 * row.time), row.step)
            for row in rows
            for name, value in row.values.items()
        ]
        with _rejections():
            for some in _chunks(metrics, self._MAX_METRICS):
                self._client.log_batch(self._id, metrics=some)

    def log_file(self, path: Path, name: str) -> None:
        """Upload an artifact."""
        if path.is_dir():
            self._client.log_artifacts(self._id, str(path), name)
        else:
            self._client.log_artifact(self._id, str(path))

    def finish(self, status: str, ended: float) -> None:
        """Set the status."""
        self._client.set_terminated(self._id, self._STATUS[status], int(1000 * ended))

    def _find_or_create(self) -> str:
        """Return the ID of the run, created before a crash or now."""
        run, client = self.run, self._client
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.group or "Default"
            found = client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else client.create_experiment(name)
        created = client.search_runs([experiment], f"tags.tracking_id = '{run.id}'")
        if created:
            return created[0].info.run_id
        tags = {"tracking_id": run.id, **({"group": run.group} if run.group else {})}
        started = int(1000 * run.started)
        return client.create_run(experiment, started, tags, run.name).info.run_id


class WeightsAndBiases(Tracker):
    """Weights & Biases, as its environment variables say: WANDB_MODE, WANDB_PROJECT, ….

    With WANDB_MODE=offline it writes into the folder wandb, for `wandb sync` to send.
    """

    package, extra = "wandb", "wandb"

    def __init__(self, run: TrackedRun) -> None:
        """Start or resume the run."""
        super().__init__(run)
        import wandb

        self._run = wandb.init(
            id=run.id,
            name=os.environ.get("WANDB_NAME") or run.name,
            group=os.environ.get("WANDB_RUN_GROUP") or run.group,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", quiet=True),
        )
        # Online, what was logged is sent some time before `close` returns.
        self.is_synchronous = self._run.offline

    @property
    def url(self) -> str | None:
        """The run's page; None offline."""
        return None if self._run.offline else self._run.url

    def log_parameters(self, parameters: Mapping[str, Parameter], tags: Mapping[str, str]) -> None:
        """Log the settings as config, and where those that are not the default come from."""
        values = {key: each.value for key, each in parameters.items()}
        sources = {k: each.source for k, each in parameters.items() if each.source != DEFAULT}
        config = {**values, "sources": sources, "facts": dict(tags)}
        self._run.config.update(config, allow_val_change=True)

    def log_metrics(self, rows: Sequence[Metrics]) -> None:
        """Log metrics. The client leaves out the steps before the last that it has."""
        for row in rows:
            self._run.log({"_timestamp": row.time, **row.values}, step=row.step)

    def log_file(self, path: Path, name: str) -> None:
        """Upload a file, or a folder as a model artifact."""
        if path.is_dir():
            self._run.log_artifact(str(path), name=f"{name}-{self.run.id}", type="model")
        else:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def finish(self, status: str, ended: float) -> None:
        """Remember the status for the end."""
        self.run.memory["exit_code"] = int(status in (FAILED, INTERRUPTED))

    def close(self) -> None:
        """Finish the run, and wait until everything is sent."""
        self._run.finish(exit_code=self.run.memory.get("exit_code", 1))


TRACKERS: dict[str, type[Tracker]] = {
    "jsonl": JsonLines,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def find_tracker(name: str) -> type[Tracker]:
    """Return the tracker of a name. Raise SettingsError if it is unknown, or can't be used."""
    tracker = choose("tracker", name, TRACKERS)
    if tracker.package and find_spec(tracker.package) is None:
        raise SettingsError(
            f"tracker {name} needs the package {tracker.package}: pip install '.[{tracker.extra}]'"
        )
    tracker.check()
    return tracker


def make_listener(settings: Settings, splits: Sequence[Any]) -> Any:
    """Return the listener of a training that reports it to the trackers of the settings.

    Args:
        settings: The settings.
        splits: The training and the validation split.

    Raises:
        SettingsError: A tracker is unknown, or its package is not installed.
    """
    import keras
    import tensorflow as tf

    from library.tracking.listener import Tracking, TrackingListener

    config = settings.project
    for name in config.trackers:
        find_tracker(name)
    values = settings.as_json()
    sources = {key: each.provenance for key, each in settings.values.items()}
    tags = {
        **find_machine(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **{k: each.fingerprint for k, each in zip(_DATA, splits, strict=False) if each.fingerprint},
    }
    tracking = Tracking(
        trackers=tuple(dict.fromkeys(config.trackers)),
        parameters={k: Parameter(v, sources.get(k, DEFAULT)) for k, v in values.items()},
        tags=tags,
        source_dir=_HERE,
        upload_snapshot=config.tracker_snapshot,
    )
    return TrackingListener(tracking, SENDER.add)


def log_file(run_dir: str | Path, name: str) -> None:
    """Report a file in a run's folder that was written after its training, such as its report.

    Args:
        run_dir: The run's folder. Nothing happens if this process did not train in it.
        name: The file's name.
    """
    if SENDER.has(run_dir):
        with _warn_on_error(f"{name} is not reported to trackers"):
            EventQueue(run_dir).append({"event": "file", "path": name, "name": name})


def log_test_metrics(run_dir: str | Path, metrics: Mapping[str, float], step: int) -> None:
    """Report metrics on the test split, if the run was reported to trackers.

    Args:
        run_dir: The run's folder.
        metrics: Name → value.
        step: Training steps of the snapshot.
    """
    queue = EventQueue(run_dir)
    if names := [name for name in trackers_of(queue) if name in TRACKERS]:
        values = {f"test/{name}": value for name, value in metrics.items()}
        event = {"event": "metrics", "time": time.time(), "step": step, "values": values}
        with _warn_on_error("test metrics are not reported to trackers"):
            queue.append(event)
            SENDER.add(Path(run_dir), names)


@contextlib.contextmanager
def _warn_on_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning(f"{what} ({reason_of(error)})")


@contextlib.contextmanager
def _rejections() -> Iterator[None]:
    """Turn MLflow's refusal of what was sent into a RejectedError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise RejectedError(error.message) from error
        raise


def _allowed(name: str) -> str:
    """Return a metric's name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


if __name__ == "__main__":
    send_from_stdin(TRACKERS)
