"""The entry point: `python run.py [command] [options]`.

Each command is the function of its name in project/commands/<name>.py; `--help` lists them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from library.errors import missing_package, run_main

try:
    from library.configuration.command_line import Command
    from library.configuration.reader import Settings
    from project.run_urls import local_copies
    from project.settings import read_settings
except ModuleNotFoundError as error:  # The wrong Python: most likely, .venv is not active.
    sys.exit(f"run.py: error: {missing_package(error) or error}")

# One line for each command, the default first. Without its line, a command is gone.
COMMANDS = {
    "train": Command("train, or resume an interrupted run"),
    "cross_validate": Command("train on all folds but one, for each; evaluate over all of them"),
    "search": Command("search for the best hyperparameters, in many trainings"),
    "evaluate": Command("evaluate the best snapshot on a split and write a report"),
    "compare": Command("compare runs: results and settings that differ", "RUN..."),
    "track": Command("send to trackers what they have not got yet", "[RUN...]"),
    "predict": Command("classify images; print CSV or JSON lines", "PATH..."),
    "select": Command("select which images to label next; print CSV or tasks", "PATH..."),
    "export": Command("export the best snapshot: SavedModel, LiteRT, ONNX"),
    "find_learning_rate": Command("suggest a learning rate, by a range test"),
    "describe": Command("describe the network: layers, parameters, memory, speed"),
    "explain": Command("explain predictions: heat maps, feature maps, neighbors", "[PATH...]"),
    "clean": Command("rank the images whose labels are probably wrong"),
    "serve": Command("serve a local web page and a JSON endpoint that classify images"),
    "preview": Command("save a picture of one augmented training batch"),
    "benchmark_inputs": Command("benchmark the input pipeline, stage by stage"),
    "profile": Command("profile some seconds of training; name the bottleneck and what would help"),
    "doctor": Command("check this machine: packages, GPUs, speed; say what slows training down"),
}


def main(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name.

    Raises:
        UserError: For everything that the user can fix.
    """
    settings = read_settings(arguments, COMMANDS)
    if settings.answer:  # --help, --print_config, --list_sets
        print(settings.answer)
        return
    name = settings.command
    if name == "train" and settings.project.validate_only:
        name = "evaluate"
    with local_copies(settings, name) as settings:
        run_command(settings, name)


def run_command(settings: Settings, name: str) -> None:
    """Run a command, once or for each of the seeds."""
    if name not in ("train", "cross_validate", "search"):
        from project.commands.setup import follow_fold

        settings = follow_fold(settings)
    if settings.project.seeds and name != "search":
        from project.commands import seeds

        if seeds.is_repeated(settings, name):
            seeds.repeat(settings, name)
            return
    getattr(import_module(f"project.commands.{name}"), name)(settings)


def command() -> int:
    """Run what the command line asks for, and return the exit code."""
    return run_main(main, sys.argv[1:], Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(command())
