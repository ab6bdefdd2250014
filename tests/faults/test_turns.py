"""Faults that take turns do not overlap where they would disturb each other's evidence."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from turns import turn

from harness.faults.turns import Alone, Turns


class Held:
    """A turn that is held until the test ends it."""

    def __init__(self, turns: Turns, target: str, alone: Alone | None) -> None:
        self.has_begun = False
        self._over = asyncio.Event()
        self.task = asyncio.create_task(self._hold(turns, target, alone))

    async def _hold(self, turns: Turns, target: str, alone: Alone | None) -> None:
        async with turns.turn(target, alone):
            self.has_begun = True
            await self._over.wait()

    async def end(self) -> None:
        self._over.set()
        await self.task
        await settle()


async def settle() -> None:
    for _ in range(10):
        await turn()


async def begun(*held: Held) -> list[bool]:
    await settle()
    return [one.has_begun for one in held]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (("decode-0", Alone.TARGET), ("decode-0", Alone.TARGET), False),
        (("decode-0", Alone.TARGET), ("prefill-0", Alone.TARGET), True),
        (("decode-0", Alone.ALL), ("prefill-0", Alone.TARGET), False),
        (("decode-0", Alone.TARGET), ("prefill-0", Alone.ALL), False),
        (("decode-0", Alone.ALL), ("decode-0", None), True),
    ],
)
async def test_who_waits_for_whom(
    first: tuple[str, Alone], second: tuple[str, Alone | None], *, together: bool
) -> None:
    turns = Turns()
    one, other = Held(turns, *first), Held(turns, *second)
    assert await begun(one, other) == [True, together]
    await one.end()
    assert await begun(other) == [True]
    await other.end()


async def test_a_fault_on_everything_is_not_overtaken_for_ever() -> None:
    turns = Turns()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.turn("decode-0", Alone.TARGET))
        everything, later = Held(turns, "prefill-0", Alone.ALL), Held(turns, "proxy", Alone.TARGET)
        assert await begun(everything, later) == [False, False]
    assert await begun(everything, later) == [True, False]
    await everything.end()
    await later.end()


async def test_one_that_is_cancelled_while_it_waits_holds_nobody_back() -> None:
    turns = Turns()
    first, second, third = (Held(turns, "decode-0", Alone.TARGET) for _ in range(3))
    await settle()
    second.task.cancel()
    await first.end()
    assert await begun(second, third) == [False, True]
    await third.end()
