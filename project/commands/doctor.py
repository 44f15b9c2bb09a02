"""The command doctor."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.configuration.reader import Settings
from library.configuration.schema import Value
from library.dataset.storage import is_remote
from library.errors import DataError, SettingsError, UserError
from library.messages import counted

if TYPE_CHECKING:
    from library.diagnosis.diagnosis import Facts
    from library.diagnosis.isolated import Outcome, Send
    from library.diagnosis.speed import Speed
    from library.machine.disk import Disk

# With the start of Python, the whole command takes less than 15 s.
SECONDS = 12.0
# For each stage of the inputs, and for the training steps after the first one.
_STAGE_SECONDS, _STEP_SECONDS = 0.5, 1.0
# As converted photographs are larger than what the network takes.
_SYNTHETIC_SCALE = 1.5


def doctor(settings: Settings) -> None:
    """Print what this machine has and how fast it trains; why a GPU is not used; what to change.

    Raises:
        SettingsError: The format is neither text nor json.
        UserError: Something prevents training.
    """
    deadline = time.monotonic() + SECONDS
    output = settings.project.compare_format
    if output not in ("text", "json"):
        raise SettingsError(f"format {output}: doctor takes text or json")
    from library.diagnosis.diagnosis import judge
    from library.diagnosis.findings import PROBLEM, format_findings, to_json

    facts = read_facts(settings, deadline)
    findings = judge(facts)
    if output == "json":
        print(to_json(findings, facts))
    else:
        print("\n".join(format_findings(findings)))
    problems = [each.subject for each in findings if each.verdict == PROBLEM]
    if problems:
        subjects = ", ".join(dict.fromkeys(problems))
        raise UserError(f"{counted(len(problems), 'problem')} would prevent training: {subjects}")


def read_facts(settings: Settings, deadline: float) -> "Facts":
    """Return all facts; what would take longer than until `deadline` (monotonic) is left out."""
    from library.diagnosis.diagnosis import Facts, choices_of, read_gpu_facts
    from library.diagnosis.isolated import IsolatedCall
    from library.machine.hardware import read_cpu, read_memory, read_platform
    from library.machine.nvidia import read_driver
    from library.machine.packages import read_packages

    config = settings.project
    with (
        tempfile.TemporaryDirectory(prefix="doctor-") as folder,
        IsolatedCall(measure, settings, folder) as call,
    ):
        # Meanwhile TensorFlow is imported.
        packages, platform, driver = read_packages(), read_platform(), read_driver()
        cpu, memory, disks = read_cpu(), read_memory(), measure_disks(config)
        outcome = call.wait(deadline - time.monotonic())
    build, speed = read_outcome(outcome)
    gpu = read_gpu_facts(driver, build, platform, config.num_gpus)
    names = ("dtype", "xla", "cache", "augment_on_device")
    chosen = choices_of(build.gpus, cpu, memory, {name: getattr(config, name) for name in names})
    return Facts(packages, platform, cpu, memory, disks, gpu, speed, chosen)


def read_outcome(outcome: "Outcome") -> tuple[Any, "Speed"]:
    """Return the TensorFlowBuild and the Speed that `measure` sent, or why it did not."""
    from library.diagnosis.speed import Speed
    from library.machine.gpu_facts import TensorFlowBuild

    speed = outcome.results.get("speed", Speed())
    if "build" not in outcome.results:
        return TensorFlowBuild(error=outcome.error, is_late=outcome.is_late), speed
    return outcome.results["build"], replace(speed, reason=outcome.error)


def measure_disks(config: Any) -> "tuple[Disk, ...]":
    """Return the disks of run_dir and data_dir, or the one that has both."""
    from library.machine.disk import existing_folder, measure_disk

    disks: dict[int, Disk] = {}
    for folder, is_run in ((config.run_dir, True), (config.data_dir, False)):
        if not is_remote(folder):
            disk = existing_folder(folder).stat().st_dev
            disks[disk] = disks.get(disk) or measure_disk(folder, is_run=is_run)
    return tuple(disks.values())


def measure(send: "Send", settings: Settings, folder: str) -> None:
    """Send the TensorFlowBuild, and then a Speed that has more and more of its values.

    Args:
        send: Sends one result by its name.
        settings: The settings.
        folder: An empty folder for whatever is written.
    """
    from library.machine.tensorflow_build import read_build
    from project.commands.setup import start_tensorflow

    given = settings.project
    # TensorFlow's messages are wanted, and all of a GPU's memory might not be free.
    config = given.model_copy(update={"verbose": True, "gpu_growth": True})

    def start() -> None:
        try:
            start_tensorflow(config)
        except SettingsError:  # num_gpus is too large, which becomes a finding.
            start_tensorflow(config.model_copy(update={"num_gpus": None}))

    send("build", read_build(start))
    measure_speed(send, settings, folder)


def measure_speed(send: "Send", settings: Settings, folder: str) -> None:
    """Send a Speed, first with the rates of the inputs, then with the times of steps too."""
    from library.describing.pipeline_benchmark import advice_on, measure_stages
    from library.diagnosis.speed import Speed, time_calls
    from library.training.steps import make_train_steps
    from project import assembly
    from project.commands.setup import data_name
    from project.data_defaults import MAX_BATCH_SIZE

    split, lacks_data = find_split(settings, folder)
    new: dict[str, Any] = {"run_dir": f"{folder}/run", "resume": "never", "trackers": ()}
    new |= {"cache": "none", "model_dir": None, "best_model_dir": None, "debug": False}
    if lacks_data and settings.project.train_batch_size is None:
        new["train_batch_size"] = MAX_BATCH_SIZE  # as data of a usual size would have
    settings = settings.with_values({name: Value(each, "doctor") for name, each in new.items()})
    devices = assembly.start_devices(settings)
    try:
        trainer = assembly.make_trainer(settings, (split, split), devices)
    except SettingsError as error:
        if lacks_data:  # Settings that fit other data are not wrong.
            raise
        send("speed", Speed(refusal=str(error)))
        return
    training: Any = trainer.inputs.training
    rates = measure_stages(training, _STAGE_SECONDS)
    speed = Speed(
        data="synthetic images" if lacks_data else data_name(settings.project),
        lacks_data=lacks_data,
        examples=0 if lacks_data else training.examples,
        cache_bytes=training.examples * training.source.mean_bytes,
        batch_size=training.batch_size,
        rates=rates,
        input_advice=advice_on(rates, training.source),
        is_base_cached=trainer.parts.cached_features is not None,
        device=devices.describe(training.batch_size),
    )
    send("speed", speed)
    # The whole network, also if later epochs train a head on cached features.
    steps = make_train_steps(
        trainer.parts, trainer.totals, strategy=devices.strategy, xla=settings.project.xla
    )
    iterator = iter(devices.divide(repeated_batch(trainer), training.batch_size))

    def make_step() -> None:
        float(steps(iterator, 1)[0][-1])  # Waits for the device.

    first = time_calls(make_step, 0)
    step = time_calls(make_step, _STEP_SECONDS)
    send("speed", replace(speed, first_step=first, step=step))


def repeated_batch(trainer: Any) -> Any:
    """Return a data set of one batch, again and again, so that no step waits for its input."""
    import tensorflow as tf

    training = trainer.inputs.training
    batches = training.step_batches(0) if trainer.parts.augment else training.batches(0)
    # In the host's memory, from where each step takes it as it would take the next one.
    batch = tf.nest.map_structure(lambda each: each.numpy(), next(iter(batches)))
    return tf.data.Dataset.from_tensors(batch).repeat()


def find_split(settings: Settings, folder: str) -> tuple[Any, str]:
    """Return the training split, or a synthetic one and why it is used."""
    from library.diagnosis.synthetic_data import make_split
    from project.commands.setup import read_data
    from project.input_assembly import with_native_size

    config = settings.project
    if is_remote(config.data_dir):
        reason = f"{config.data_dir} is remote: not downloaded only to measure"
    else:
        try:
            return read_data(config, "train")[0], ""
        except DataError as error:
            reason = str(error)
    config = with_native_size(settings).project
    edges = (config.image_size, config.image_width or config.image_size)
    return make_split(Path(folder), *(round(_SYNTHETIC_SCALE * each) for each in edges)), reason
