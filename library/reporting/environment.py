"""What a run ran on: versions, devices, the machine. As rows for a report."""

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

import tensorflow as tf

_PACKAGES = ("tensorflow", "keras", "numpy")


def describe_environment():
    """Give (name, words) of each thing worth knowing when a result is to be repeated."""
    rows = [("written", datetime.now().astimezone().isoformat(" ", "seconds"))]
    rows.append(("Python", platform.python_version()))
    rows += [(name, _version(name)) for name in _PACKAGES]
    rows.append(("system", platform.platform()))
    rows.append(("processor cores", str(os.cpu_count())))
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(each) for each in gpus]
    names = [each.get("device_name", "GPU") for each in details]
    rows.append(("devices", ", ".join(names) if names else "CPU"))
    return rows


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed under this name"
