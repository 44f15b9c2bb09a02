import platform

import keras

from library.reporting import environment
from library.reporting.environment import describe_environment


def test_versions_devices_and_the_machine_are_told(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("keras", "no such package"))
    told = dict(describe_environment())
    assert told["Python"] == platform.python_version()
    assert told["keras"] == keras.__version__
    assert told["no such package"] == "not installed under this name"
    assert told["devices"]
