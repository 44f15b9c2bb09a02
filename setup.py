"""Put the two YAML files into the package, beside run.py, which pyproject.toml cannot do."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = ("project.yaml", "hyperparameters.yaml")


class BuildWithSettings(build_py):
    """Copy the modules, and the two YAML files that run.py looks for beside itself."""

    def run(self) -> None:
        """Build, and copy the YAML files unless the project is installed in place."""
        super().run()
        if not self.editable_mode:
            for name in FILES:
                shutil.copy(name, Path(self.build_lib, name))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the paths of all copied files."""
        copied = [] if self.editable_mode else [str(Path(self.build_lib, name)) for name in FILES]
        return [*super().get_outputs(include_bytecode), *copied]


setup(cmdclass={"build_py": BuildWithSettings})
