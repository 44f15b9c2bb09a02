"""Run a Beam pipeline as a command does: one line for an error, and nothing left after Ctrl-C."""

import contextlib
import io
import logging
import os
import queue
import re
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import library.errors
from library.beam.harness import LEASE
from library.errors import SettingsError, StoppedError, UserError, first_line
from library.messages import did_you_mean

_ROOT = Path(__file__).resolve().parents[2]
# Loggers of Beam that say where a job runs and how it stands.
_JOB_LOGGERS = ("runners.dataflow", "runners.portability.portable_runner")
# An error of this project's in a worker, as the last line of the traceback that Beam passes on.
_OWN_ERROR = re.compile(r"library\.errors\.(\w+): (.+)")
_STEP = re.compile(r"\s*\[while running .*$")
# How long the end of a pipeline that was stopped is waited for.
_END_SECONDS = 10
# Beam's name for a thread that waits for a worker process, or is one itself.
_WORKER_THREAD = "run_worker"
_READER_THREAD = "beam_control_read"

logger = logging.getLogger(__name__)


class _JobHandler(logging.Handler):
    """Pass on what Beam logs as if this module did."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.log(record.levelno, " ".join(record.getMessage().split()))


def import_beam() -> Any:
    """Return the module apache_beam, whose own log is not shown. Raise SettingsError."""
    beam_logger = logging.getLogger("apache_beam")
    beam_logger.propagate = False
    if not beam_logger.handlers:
        # Beam also logs to the root logger, which would get a handler of its own.
        for each in (beam_logger, logging.getLogger()):
            each.addHandler(logging.NullHandler())
        for name in _JOB_LOGGERS:
            beam_logger.getChild(name).setLevel(logging.INFO)
            beam_logger.getChild(name).addHandler(_JobHandler())
    try:
        import apache_beam
    except ImportError as error:
        raise SettingsError(
            f"engine: beam needs the package apache_beam ({first_line(error)}): "
            "pip install '.[beam]'"
        ) from None
    return apache_beam


def read_options(text: str) -> Any:
    """Return Beam's PipelineOptions of a command line such as `--runner=DataflowRunner …`.

    Raises SettingsError for an unknown runner, an option that Beam does not know, a wrong value.
    """
    import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.runner import create_runner

    output = io.StringIO()
    try:
        flags = shlex.split(text)
        # Beam's parser prints its usage and exits.
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            options = PipelineOptions(flags)
            # Its module may define options of its own.
            name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
            runner = create_runner(name)
            values = options.get_all_options(retain_unknown_options=True)
            known = options.get_all_options()
    except SystemExit:
        lines = output.getvalue().strip().splitlines() or ["the options can't be read"]
        raise SettingsError(f"beam_options: {lines[-1].partition('error: ')[2]}") from None
    except (ValueError, ImportError, AttributeError) as error:
        raise SettingsError(f"beam_options: {first_line(error)}") from None
    if flags and not flags[0].startswith("-"):
        raise SettingsError(f"beam_options: {flags[0]!r} is not an option, such as --runner=…")
    if unknown := sorted(values.keys() - known.keys()):
        advice = did_you_mean(unknown[0], known, "see docs/beam.md")
        raise SettingsError(f"beam_options: unknown option --{unknown[0]}{advice}")
    if problems := PipelineOptionsValidator(options, runner).validate():
        raise SettingsError(f"beam_options: {problems[0].rstrip('.')}")
    return options


def run_pipeline(
    build: Callable[[Any], object],
    options: Any,
    *,
    stop: Callable[[], object] = lambda: None,
    wait: Callable[[], object] = lambda: None,
) -> None:
    """Run a pipeline, and return when it has succeeded.

    Args:
        build: Adds the steps to a pipeline.
        options: From `read_options`.
        stop: Called if the pipeline fails or a signal arrives: it makes steps under way fail soon.
        wait: Called about each second meanwhile.

    Raises:
        UserError: The pipeline failed. An error of library.errors in a step keeps its class.
    """
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    job = _Job(build, options, outcomes)
    with tempfile.NamedTemporaryFile() as lease, _worker_deaths(outcomes):
        os.environ[LEASE] = lease.name
        # A thread, because most runners wait where a signal does not interrupt them.
        thread = threading.Thread(target=job.run, daemon=True)
        thread.start()
        try:
            while True:
                try:
                    error = outcomes.get(timeout=1)
                    break
                except queue.Empty:
                    wait()
            if error is not None:
                raise _explain(error)
        except BaseException:
            stop()
            job.cancel()
            raise
        finally:
            lease.close()
            for each in threading.enumerate():
                # Of a runner whose worker process has died, the thread itself waits forever.
                is_job = each is thread and not job.has_processes
                # The reader raises when its worker process has gone: while the hook is set.
                if is_job or each.name in (_WORKER_THREAD, _READER_THREAD):
                    each.join(_END_SECONDS)


class _Job:
    """A pipeline under way. Puts an error or None into `outcomes` when it ends."""

    def __init__(
        self,
        build: Callable[[Any], object],
        options: Any,
        outcomes: "queue.SimpleQueue[BaseException | None]",
    ) -> None:
        self._build = build
        self._options = options
        self._outcomes = outcomes
        self._result: Any = None
        self.has_processes = False

    def run(self) -> None:
        """Run the pipeline to its end."""
        try:
            self._run()
        except BaseException as error:
            self._outcomes.put(error)
        else:
            self._outcomes.put(None)

    def cancel(self) -> None:
        """End a job that a cluster runs."""
        with contextlib.suppress(Exception):
            self._result.cancel()

    def _run(self) -> None:
        import apache_beam as beam

        direct = self._options.view_as(beam.options.pipeline_options.DirectOptions)
        mode = direct.direct_running_mode
        self.has_processes = mode == "multi_processing"
        pipeline = beam.Pipeline(runner=_make_runner(self._options), options=self._options)
        self._build(pipeline)
        self._result = pipeline.run()
        # For another pipeline with the same options: _make_runner changes it.
        direct.direct_running_mode = mode
        state = self._result.wait_until_finish()
        if str(state) not in ("DONE", "None"):
            raise UserError(f"the pipeline ended in the state {state}: see the log of its runner")
        if client := getattr(self._result, "client", None):
            client.close()  # Dask's, which would complain at the interpreter's exit.


def _make_runner(options: Any) -> Any:
    """Return the runner, or its name.

    Beam's own DirectRunner is not used: it first downloads Prism, a program that ignores
    direct_num_workers, and runs FnApiRunner only where that fails.
    """
    from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

    name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    if name.lower() not in ("directrunner", "direct", "fnapirunner", "fnapi"):
        return name
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    information = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    environment = None
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        # With this mode, the runner would replace the environment by its own.
        direct.direct_running_mode = "in_memory"
        python = shlex.quote(sys.executable)
        environment = SubprocessSDKEnvironment.from_command_string(
            f"PYTHONPATH={shlex.quote(str(_ROOT))}:$PYTHONPATH exec {python} -m {_HARNESS}"
        )
    return fn_runner.FnApiRunner(
        environment, provision_info=fn_runner.ExtendedProvisionInfo(information)
    )


_HARNESS = "library.beam.harness"


@contextlib.contextmanager
def _worker_deaths(outcomes: "queue.SimpleQueue[BaseException | None]") -> Iterator[None]:
    """Put an error into `outcomes` if a worker process dies: the DirectRunner would wait for it."""
    before = threading.excepthook

    def take(arguments: threading.ExceptHookArgs) -> None:
        # Other threads of Beam only lose their connection to it.
        if arguments.thread and arguments.thread.name == _WORKER_THREAD:
            reason = first_line(arguments.exc_value) if arguments.exc_value else "it has ended"
            outcomes.put(UserError(f"the pipeline failed: {reason}"))

    threading.excepthook = take
    try:
        yield
    finally:
        threading.excepthook = before


def _explain(error: BaseException) -> UserError:
    """Return a pipeline's error as one line, of the class that a step raised."""
    if isinstance(error, UserError):
        return type(error)(_STEP.sub("", str(error)))
    text = str(error)
    if type(error).__name__ == "FutureTimeoutError":  # gRPC's, without a text.
        return UserError("the job server does not answer: check job_endpoint in beam_options")
    if "No module named 'library'" in text:
        return UserError("the workers lack this project: see docs/beam.md on how they get its code")
    if found := _OWN_ERROR.findall(text):
        name, message = found[-1]
        kind = getattr(library.errors, name, UserError)
        if issubclass(kind, UserError) and kind is not StoppedError:
            return kind(_STEP.sub("", message))
    # Of a worker's traceback, the last line says what went wrong.
    lines = [_STEP.sub("", each).strip() for each in text.splitlines()]
    last = next((each for each in reversed(lines) if each), "")
    kind = "" if len(lines) > 1 else f"{type(error).__name__}: "
    wrapped = UserError(f"the pipeline failed: {kind}{last}")
    wrapped.__cause__ = error
    return wrapped
