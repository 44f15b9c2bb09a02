import math

import pytest

from library.training.interruption import TimeBudget


class Agreeing:
    """Stands for the devices: a clock that is moved by hand."""

    now = 100.0

    def agree(self, received):
        return received, self.now


def test_time_goes_on_where_an_earlier_process_stopped():
    devices = Agreeing()
    clock = TimeBudget(devices)
    clock.earlier = 7.0
    clock.start()
    devices.now += 3
    assert clock.elapsed == 7.0  # as of the last time that all agreed
    assert clock.agree("signal") == "signal"
    assert clock.elapsed == 10.0
    assert clock.now - clock.saved_at == 3


@pytest.mark.parametrize(
    ("step", "seconds", "fitting"),
    [
        (5, 20, 10),
        (5, 1000, 100),
        (5, 10, 5),
        (5, 4, 5),
        (5, 10.5, 6),
        (0, 20, 1),
        (5, math.inf, 100),
    ],
)
def test_as_many_steps_as_fit_but_no_more_than_planned(step, seconds, fitting):
    clock = TimeBudget(Agreeing())
    clock.earlier = 10.0
    clock.start()
    assert clock.fit_steps(step, 100, seconds) == fitting
