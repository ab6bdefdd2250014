"""The closed loop: a late consumer does not change the time at which a request was due."""

from harness.run.arrivals import ClosedLoop
from harness.scenario import Request


class SetClock:
    """Shows the time that a test sets."""

    time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def test_a_request_is_due_when_its_slot_becomes_free() -> None:
    clock = SetClock()
    loop = ClosedLoop(1, clock)
    due = loop.due([Request(name, ()) for name in "ab"])
    clock.time = 1.0
    request, intended_at = await anext(due)
    assert (request.request_id, intended_at) == ("a", 0.0)
    loop.ended()
    clock.time = 3.0
    request, intended_at = await anext(due)
    assert (request.request_id, intended_at) == ("b", 1.0)
    assert [left async for left in due] == []
