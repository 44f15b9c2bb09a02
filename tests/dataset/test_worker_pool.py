import os

from library.dataset.worker_pool import available_cores


def test_as_many_cores_as_the_process_may_use():
    assert 1 <= available_cores() <= os.cpu_count()
