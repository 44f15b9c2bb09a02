"""TensorFlow's build and the GPUs that it uses. To be called in a process of its own."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from library.machine.gpu_facts import TensorFlowBuild, TensorFlowGpu
from library.tensorflow_import import import_tensorflow

# Lines of TensorFlow's log about GPUs, without what every start says.
_ABOUT_GPUS = re.compile(r"cuda|gpu|cudnn|dlopen|dso", re.IGNORECASE)
_PREFIX = re.compile(r"^[IWEF]\w*[\d :.-]+\S+\] ")


def read_build(start: Callable[[], None]) -> TensorFlowBuild:
    """Import TensorFlow, start its devices, and return what it is and uses.

    Args:
        start: Imports TensorFlow and starts the devices that the settings choose.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    with _captured_log() as log:
        import_tensorflow(verbose=True, choose_devices=lambda: False)
        start()
        import tensorflow as tf

        gpus = read_gpus()
    info = tf.sysconfig.get_build_info()
    return TensorFlowBuild(
        version=tf.__version__,
        cuda=str(info.get("cuda_version", "")) if info.get("is_cuda_build") else "",
        cudnn=str(info.get("cudnn_version", "")),
        capabilities=tuple(info.get("cuda_compute_capabilities", ())),
        gpus=gpus,
        messages=tuple(gpu_messages("".join(log))),
    )


def read_gpus() -> tuple[TensorFlowGpu, ...]:
    """Return the GPUs that TensorFlow, which has been started, uses."""
    import tensorflow as tf

    physical = tf.config.list_physical_devices("GPU")
    used = range(len(tf.config.list_logical_devices("GPU")))
    details = (tf.config.experimental.get_device_details(physical[each]) for each in used)
    return tuple(
        TensorFlowGpu(each.get("device_name", "GPU"), each.get("compute_capability"))
        for each in details
    )


def gpu_messages(log: str) -> Iterator[str]:
    """Yield what a log of TensorFlow says about GPUs, without times and places, each once."""
    lines = (_PREFIX.sub("", line).strip() for line in log.splitlines() if _PREFIX.match(line))
    yield from dict.fromkeys(line for line in lines if _ABOUT_GPUS.search(line))


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Yield a list that has, after the block, what was written to file descriptor 2 within it."""
    captured: list[str] = []
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            captured.append(file.read().decode(errors="replace"))
