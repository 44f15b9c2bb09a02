import asyncio
import threading

import pytest

from library.serving.refusals import RefusedError
from library.serving.turns import Turns


def test_one_works_a_few_wait_and_more_are_refused():
    turns, may_end, inside, most = Turns(2), threading.Event(), [], []

    def work(number):
        inside.append(number)
        most.append(len(inside))
        may_end.wait(10)
        inside.remove(number)
        return number

    async def ask():
        asked = [asyncio.create_task(turns.take(work, each)) for each in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="too many pictures wait already: try again soon"):
            await turns.take(work, 3)
        may_end.set()
        assert await asyncio.gather(*asked) == [0, 1, 2]
        # Places are free again.
        assert await turns.take(work, 4) == 4

    asyncio.run(ask())
    assert max(most) == 1
    turns.close()


def test_an_error_comes_through_and_its_place_is_free_again():
    turns = Turns(0)

    async def ask():
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await turns.take(lambda: 1 / 0)

    asyncio.run(ask())
    turns.close()


def test_who_hangs_up_frees_the_place_when_the_work_is_done():
    turns, may_end = Turns(0), threading.Event()

    async def ask():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await turns.take(may_end.wait, 10)
        with pytest.raises(RefusedError, match="too many"):
            await turns.take(int)
        may_end.set()
        while True:
            try:
                return await turns.take(int)
            except RefusedError:
                await asyncio.sleep(0.01)

    assert asyncio.run(asyncio.wait_for(ask(), 10)) == 0
    turns.close()
