"""What a GPU gains from each of its features, and how fast it trains: ratios of neighboring rounds.

    python -m benchmarks.gpu [--minutes 8] [--only xla,inputs] [--small]

Each part runs in a process of its own, with its share of the time left; one that fails or takes too
long does not stop the others. Contenders of a part take turns, and a ratio is the median over the
rounds. Networks and inputs are made from settings, as `run.py` makes them:

- prefetch, precision, xla, mirrored: a ResNet-50 with the feature against the same without it
- inputs: a ResNet-50 fed by the input pipeline against one synthetic batch again and again, and the
  pipeline alone
- cifar: a ResNet-56 on the bundled sample, scaled to CIFAR's 32 x 32 x 3, for some epochs, against
  the same training through Keras's `fit`

--small uses tiny networks, so that two minutes on a CPU show that all parts work. The last line is
one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.diagnosis.isolated import IsolatedCall, Send
from library.machine.nvidia import count_driver_gpus

ROOT = Path(__file__).resolve().parent.parent
# What a part may use of the time that is left, in relation to the parts after it: XLA compiles a
# ResNet-50 for a minute.
WEIGHTS = {"inputs": 3, "precision": 3, "cifar": 3, "mirrored": 2, "prefetch": 2, "xla": 4}
ROUNDS = 5

# Trains a number of steps, and returns when the last one is done.
Train = Callable[[int], None]


@dataclass(frozen=True)
class Sizes:
    """What is trained."""

    network: str
    options: tuple[str, ...]
    image_size: int
    batch_size: int
    cifar_layers: int
    cifar_edge: int
    cifar_training: str  # split of the sample
    epochs: int
    round_seconds: float


SIZES = {
    False: Sizes(
        "ResNet-50",
        ("--model=application", "--application=ResNet50", "--application_weights=none"),
        *(224, 64, 56, 32, "train", 8, 3.0),
    ),
    True: Sizes("simple", ("--model=simple",), 32, 16, 20, 16, "validation", 3, 0.3),
}


def main() -> None:
    """Run the parts, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", default=",".join(WEIGHTS), help="parts, separated by commas")
    parser.add_argument("--small", action="store_true", help="tiny networks, also without a GPU")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := {*names} - {*WEIGHTS}:
        parser.error(f"unknown part {min(unknown)}; choose from {', '.join(WEIGHTS)}")
    if not arguments.small and not count_driver_gpus():
        parser.error("the driver sees no GPU (python run.py doctor); --small runs on a CPU")
    os.chdir(ROOT)
    # Some seconds are left for what surrounds the parts.
    deadline = time.monotonic() + 60 * arguments.minutes - 10
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "cifar" in names:
            convert_sample(Path(folder))
        for number, name in enumerate(names):
            share = WEIGHTS[name] / sum(WEIGHTS[each] for each in names[number:])
            seconds = share * (deadline - time.monotonic())
            found = run_part(name, arguments.small, folder, seconds)
            results[name] = found
            print(f"{name:10} {describe(found)}", flush=True)
    print(json.dumps({"network": SIZES[arguments.small].network, **results}))


def convert_sample(folder: Path) -> None:
    """Convert the bundled sample."""
    for split in ("train", "validation"):
        subprocess.run(
            [
                *(
                    sys.executable,
                    "convert_dataset.py",
                    f"--dataset_dir=dataset/sample.zip/{split}",
                ),
                *(f"--tfrecord_filename={split}", f"--tfrecord_dir={folder}/sample/{split}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


def run_part(name: str, is_small: bool, folder: str, seconds: float) -> dict[str, Any]:
    """Return what a part measured, with `error` if it did not come to its end."""
    part = Path(folder, name)
    part.mkdir()
    from benchmarks.gpu import measure_part  # of a module that the other process can import

    with IsolatedCall(measure_part, name, is_small, str(part)) as call:
        outcome = call.wait(seconds)
    error = f"stopped after {seconds:.0f} s" if outcome.is_late else outcome.error
    return outcome.results | ({"error": error} if error else {})


def describe(found: dict[str, Any]) -> str:
    """Return the results of a part on one line."""
    words = [f"{name} {value:,.4g}" for name, value in found.items() if isinstance(value, float)]
    return ", ".join([*words, *([f"FAILED: {found['error']}"] if "error" in found else [])])


def measure_part(send: Send, name: str, is_small: bool, folder: str) -> None:
    """Measure one part in a process of its own; results are sent by name."""
    from library.tensorflow_import import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    send("device", tf.config.experimental.get_device_details(gpus[0]) if gpus else "CPU")
    PARTS[name](send, SIZES[is_small], folder)


def measure_prefetch(send: Send, sizes: Sizes, folder: str) -> None:
    """Measure prefetching to the device, with images in memory, so that they come fast."""
    split, options = make_images(sizes, folder), ("--cache=memory", "--augmentations=none")
    contenders = {
        f"prefetch {count}": from_inputs(
            make_trainer(sizes, split, *options, f"--prefetch_to_device={count}")
        )
        for count in (0, 1)
    }
    compare(send, sizes, "prefetch 0", contenders)


def measure_precision(send: Send, sizes: Sizes, folder: str) -> None:
    """Measure mixed precision."""
    split = make_images(sizes, folder)
    contenders = {
        each: from_one_batch(make_trainer(sizes, split, f"--dtype={each}"))
        for each in ("float32", "bfloat16", "float16")
    }
    compare(send, sizes, "float32", contenders)


def measure_xla(send: Send, sizes: Sizes, folder: str) -> None:
    """Measure a step that XLA compiles."""
    split = make_images(sizes, folder)
    contenders = {
        "no XLA": from_one_batch(make_trainer(sizes, split)),
        "XLA": from_one_batch(make_trainer(sizes, split, "--xla")),
    }
    compare(send, sizes, "no XLA", contenders)


def measure_mirrored(send: Send, sizes: Sizes, folder: str) -> None:
    """Measure what MirroredStrategy costs on one device."""
    import tensorflow as tf

    split = make_images(sizes, folder)
    devices = [each.name for each in tf.config.list_logical_devices("GPU")] or ["CPU:0"]
    strategy = tf.distribute.MirroredStrategy(devices[:1])
    contenders = {
        "no strategy": from_one_batch(make_trainer(sizes, split)),
        "mirrored": from_one_batch(make_trainer(sizes, split, strategy=strategy)),
    }
    compare(send, sizes, "no strategy", contenders)


def measure_inputs(send: Send, sizes: Sizes, folder: str) -> None:
    """Measure training from JPEGs, cropped and flipped, against training on a ready batch."""
    trainer = make_trainer(sizes, make_images(sizes, folder), "--augmentations=distorted_crop,flip")
    batches = iter(endless_batches(trainer))

    def read(steps: int) -> None:
        for _ in range(steps):
            next(batches)

    contenders = {
        "synthetic": from_one_batch(trainer),
        "inputs": from_inputs(trainer),
        "inputs alone": read,
    }
    compare(send, sizes, "synthetic", contenders)


def measure_cifar(send: Send, sizes: Sizes, folder: str) -> None:
    """Train for some epochs with both engines: seconds of an epoch, and accuracy."""
    from library.dataset.splits import read_splits
    from library.training.distribution import Devices
    from project import assembly

    splits = read_splits(Path(folder).parent / "sample", sizes.cifar_training, "validation")
    seconds = {}
    for engine in ("loop", "fit"):
        settings = read_options(
            *("--config_set=cifar_resnet56", f"--residual_layers={sizes.cifar_layers}"),
            f"--image_size={sizes.cifar_edge}",
            *(f"--train_epochs={sizes.epochs}", f"--run_dir={folder}/{engine}"),
            *(f"--engine={engine}", "--no-report", "--batch_size=128"),
        )
        trainer = assembly.make_trainer(settings, splits, Devices())
        best = trainer.fit()
        # The first epoch compiles.
        rates = [row["images_per_second"] for row in trainer.state.rows[1:]]
        seconds[engine] = splits[0].examples / statistics.median(rates)
        send(f"{engine}: s per epoch", seconds[engine])
        send(f"{engine}: validation accuracy", float(best["validation"]["accuracy"]))
    send("ratio loop / fit", seconds["fit"] / seconds["loop"])


PARTS: dict[str, Callable[[Send, Sizes, str], None]] = {
    "prefetch": measure_prefetch,
    "precision": measure_precision,
    "xla": measure_xla,
    "mirrored": measure_mirrored,
    "inputs": measure_inputs,
    "cifar": measure_cifar,
}


def make_images(sizes: Sizes, folder: str) -> Any:
    """Return a converted split of eight batches of photographs, larger than the network's input."""
    from library.diagnosis.synthetic_data import make_split

    edges = round(1.25 * sizes.image_size), round(1.7 * sizes.image_size)
    return make_split(Path(folder), *edges, images=8 * sizes.batch_size)


def read_options(*options: str) -> Any:
    """Return the settings of a command line."""
    from project.settings import read_settings

    return read_settings(list(options))


def make_trainer(sizes: Sizes, split: Any, *options: str, strategy: Any = None) -> Any:
    """Return a Trainer of the network that all parts but `cifar` train.

    Args:
        sizes: What is trained.
        split: The training split, also used as the other one.
        *options: Options of the command line.
        strategy: A tf.distribute.Strategy; None: none.
    """
    from library.training.distribution import Devices
    from project import assembly

    folder = tempfile.mkdtemp(dir=split.folder)
    settings = read_options(
        *(*sizes.options, "--fine_tuning", "--optimizer=momentum", "--cache_features=never"),
        *(f"--image_size={sizes.image_size}", f"--batch_size={sizes.batch_size}"),
        *(f"--run_dir={folder}", *options),
    )
    return assembly.make_trainer(settings, (split, split), Devices(strategy))


def endless_batches(trainer: Any) -> Any:
    """Return the batches of the first epoch, again and again."""
    return trainer.inputs.training.batches(0).repeat()


def from_inputs(trainer: Any) -> Train:
    """Return a function that trains on what the input pipeline gives."""
    return _training(trainer, endless_batches(trainer))


def from_one_batch(trainer: Any) -> Train:
    """Return a function that trains on one batch of the host's memory, again and again."""
    from project.commands.doctor import repeated_batch

    return _training(trainer, repeated_batch(trainer))


def _training(trainer: Any, batches: Any) -> Train:
    iterator = iter(trainer.devices.divide(batches, trainer.inputs.training.batch_size))

    def train(steps: int) -> None:
        for _ in range(steps):
            losses, _ = trainer.train_steps(iterator, 1)
        float(losses[-1])  # Waits for the device.

    return train


def compare(send: Send, sizes: Sizes, reference: str, contenders: dict[str, Train]) -> None:
    """Let contenders take turns. Send the images/s of each, and its ratio to the reference.

    Args:
        send: Sends one result by its name, after each round.
        sizes: What is trained.
        reference: The name of the contender with which the others are compared.
        contenders: By name.
    """
    steps = {}
    for name, train in contenders.items():
        send(f"{name}: first step, s", seconds_of(train, 1))
        train(2)
        steps[name] = max(2, round(2 * sizes.round_seconds / seconds_of(train, 2)))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS):
        # Who comes first alternates.
        for name in [*contenders][:: -1 if number % 2 else 1]:
            images = steps[name] * sizes.batch_size
            rates[name].append(images / seconds_of(contenders[name], steps[name]))
        for name in contenders:
            send(f"{name}: images/s", statistics.median(rates[name]))
            if name != reference:
                ratios = [a / b for a, b in zip(rates[name], rates[reference], strict=True)]
                send(f"ratio {name} / {reference}", statistics.median(ratios))


def seconds_of(train: Train, steps: int) -> float:
    """Return the seconds that a number of steps takes."""
    start = time.perf_counter()
    train(steps)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
