"""Train, evaluate, predict, export, …: the command line, and the map of the house.

`python run.py --help` tells more. Each command is a file of project/commands.
"""

import sys
from pathlib import Path

from library.errors import missing_package, run_main

try:
    from project.commands.benchmark_inputs import benchmark_inputs
    from project.commands.compare import compare
    from project.commands.describe import describe
    from project.commands.evaluate import evaluate
    from project.commands.explain import explain
    from project.commands.export import export
    from project.commands.predict import predict
    from project.commands.preview import preview
    from project.commands.serve import serve
    from project.commands.train import train
    from project.settings import read_settings
except ModuleNotFoundError as error:  # The wrong Python: most likely, .venv is not active.
    sys.exit(f"run.py: error: {missing_package(error) or error}")

COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "export": export,
    "describe": describe,
    "explain": explain,
    "preview": preview,
    "serve": serve,
    "benchmark_inputs": benchmark_inputs,
}


def main(arguments):
    """Run the command that the arguments name. Raises UserError."""
    settings = read_settings(arguments)
    if settings.answer:  # --help, --print_config, --list_sets
        print(settings.answer)
    else:
        is_validation = settings.command == "train" and settings.project.validate_only
        COMMANDS["evaluate" if is_validation else settings.command](settings)


def command():
    """Run what the command line says. Give the exit code."""
    return run_main(main, sys.argv[1:], Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(command())
