"""Clients whose requests fail during a fault go on one after another, and all at once when it is undone."""

import asyncio

from hand_clock import HandClock

from harness.faults.spacing import FAILURES_PER_S, KEPT, TRIES_S, Spacing

AFTERWARDS_S = 60.0


class Clients:
    """Clients whose requests all fail at the same time."""

    def __init__(self, count: int) -> None:
        self.clock = HandClock()
        self.spacing = Spacing(self.clock, AFTERWARDS_S)
        self.count = count
        self.left = 1.0
        self.tasks: list[asyncio.Task[None]] = []

    def fail(self) -> None:
        self.tasks = [asyncio.create_task(self.spacing.after_failure(lambda: self.left)) for _ in range(self.count)]

    async def gone_on(self, at: float) -> int:
        await self.clock.advance(at)
        return sum(task.done() for task in self.tasks)

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


async def test_without_a_fault_nobody_waits() -> None:
    clients = Clients(5)
    clients.fail()
    assert await clients.gone_on(0) == 5


async def test_during_a_fault_they_go_on_one_after_another() -> None:
    clients = Clients(20)
    clients.spacing.began()
    clients.fail()
    assert await clients.gone_on(0) == 0
    assert abs(await clients.gone_on(3.01) - 3 * FAILURES_PER_S) <= 1
    clients.end()


async def test_when_the_fault_is_undone_all_go_on() -> None:
    clients = Clients(20)
    clients.spacing.began()
    clients.fail()
    await clients.gone_on(1)
    clients.spacing.healed()
    assert await clients.gone_on(1.2) == 20


async def test_the_end_of_the_load_waits_until_the_fault_is_undone() -> None:
    """A server may take longer to start than the load has requests to fail."""
    clients = Clients(4)
    clients.spacing.began()
    clients.left = KEPT
    clients.fail()
    assert await clients.gone_on(1000) == 0
    clients.spacing.healed()
    assert await clients.gone_on(1001) == 4


async def test_when_one_of_two_faults_is_undone_a_few_of_the_last_go_on() -> None:
    """The other may be observed by them alone: a link that is used at the first request after a restart."""
    clients = Clients(20)
    clients.spacing.began()
    clients.spacing.began()
    clients.left = KEPT
    clients.fail()
    assert await clients.gone_on(10) == 0
    clients.spacing.healed()
    assert await clients.gone_on(10.2) == 1
    assert 2 <= await clients.gone_on(10.2 + 2 * TRIES_S) <= 3
    clients.spacing.healed()
    assert await clients.gone_on(20) == 20


async def test_while_the_deployment_recovers_they_still_wait() -> None:
    """A server that answers again may still refuse for a while, and would use up the load."""
    clients = Clients(20)
    clients.spacing.began()
    clients.spacing.healed()
    clients.fail()
    assert await clients.gone_on(1) <= 2 * FAILURES_PER_S
    await clients.gone_on(AFTERWARDS_S + 1)
    clients.fail()
    assert await clients.gone_on(AFTERWARDS_S + 1) == 20


async def test_when_all_requests_have_ended_nobody_waits_any_more() -> None:
    clients = Clients(20)
    clients.spacing.began()
    clients.spacing.healed()
    clients.fail()
    await clients.gone_on(0)
    clients.left = 0.0
    assert await clients.gone_on(0.2) == 20
