"""What pyproject.toml can't say: the two YAML files go into the package, beside run.py."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SETTINGS = ("project.yaml", "hyperparameters.yaml")


class BuildWithSettings(build_py):
    """Copies modules, and the files that they look for beside themselves."""

    def run(self):
        """Copy all into the folder of the build; into none where the project is used in place."""
        super().run()
        if not self.editable_mode:
            for name in SETTINGS:
                shutil.copy(name, Path(self.build_lib, name))

    def get_outputs(self, include_bytecode=True):
        """Return the path of each file that was copied."""
        mine = [] if self.editable_mode else [str(Path(self.build_lib, name)) for name in SETTINGS]
        return [*super().get_outputs(include_bytecode), *mine]


setup(cmdclass={"build_py": BuildWithSettings})
