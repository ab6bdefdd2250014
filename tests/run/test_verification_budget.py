"""A run whose servers become slow when its outputs are verified keeps to its budget, and is judged by what it has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.facts import Deployment, Role, Server
from harness.history import Choice, ClientHealth, Ended, History, Outcome, RunEnded, VerificationPlanned
from harness.observer import SilentObserver
from harness.reports.verification_cost import verification_cost
from harness.run import Recorder, Sending, Transport, carry_out
from harness.scenario import Phase, Purpose, Request, Sampling, Scenario
from harness.verify.asking import VerifyOptions, VerifyPolicy

DEPLOYMENT = Deployment(
    tuple(Server(f"{role}-0", role, f"http://{role}", block_size=16, max_model_len=4096) for role in Role),
    "http://proxy",
    "m",
    launched=True,
)


@dataclass(slots=True)
class Servers:
    """Answer each request after the seconds that its purpose takes, one request at a time."""

    clock: JumpingClock
    seconds: dict[Purpose, float]
    """Seconds of a request by its purpose; of any other: 0.01."""

    async def send(self, request: Request) -> Ended:
        await self.clock.sleep(self.seconds.get(request.purpose, 0.01))
        choice = Choice(tuple(range(request.sampling.max_tokens)), finish_reason="length")
        return Ended(self.clock.now(), request.request_id, Outcome.OK, status=200, choices=(choice,))


class Watcher(SilentObserver):
    """Keeps what it is told about verification."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        self.told.append((expected, seconds, tokens))

    def note(self, text: str) -> None:
        self.told.append(text)


def load(count: int) -> Scenario:
    requests = tuple(Request(f"r{n}", (n + 10, *range(100, 139)), Sampling(10)) for n in range(count))
    return Scenario("load", "", (Phase("load", requests, 8, counted=False),))


async def run(policy: str, seconds: dict[Purpose, float], count: int = 400) -> tuple[History, Watcher]:
    clock, counters, watcher = JumpingClock(), Journal(), Watcher()
    async with asyncio.timeout(60):
        carried = await carry_out(
            [load(count)],
            DEPLOYMENT,
            sending=Sending(),
            verify=VerifyOptions(policy=VerifyPolicy.parse(policy), salt="s", concurrency=8),
            record=Recorder(),
            clock=clock,
            observer=watcher,
            transport=Transport(
                Servers(clock, {Purpose.LOAD: 0.2, **seconds}).send,
                counters,
                lambda _sent: ClientHealth(clock.now(), 0.0, 0.0, 0.0, 0.0),
            ),
        )
    return carried.history, watcher


async def test_the_client_is_watched_while_the_load_is_sent_and_at_no_other_time() -> None:
    clock, times = JumpingClock(), list[float]()

    @asynccontextmanager
    async def watching() -> AsyncIterator[None]:
        times.append(clock.now())
        yield
        times.append(clock.now())

    async with asyncio.timeout(60):
        carried = await carry_out(
            [load(64)],
            DEPLOYMENT,
            sending=Sending(),
            verify=VerifyOptions(policy=VerifyPolicy.parse("all"), salt="s", concurrency=8),
            record=Recorder(),
            clock=clock,
            transport=Transport(
                Servers(clock, {Purpose.LOAD: 0.2, Purpose.FORCING: 1.0}).send,
                Journal(),
                lambda _sent: ClientHealth(clock.now(), 0.0, 0.0, 0.0, 0.0),
                watching,
            ),
        )
    of_load = [one for one in carried.history.operations() if one.request.of_load]
    assert times == pytest.approx([of_load[0].sent.at, max(one.ended.at for one in of_load)])
    assert clock.now() > times[1] + 1.0


def sent(history: History, *purposes: Purpose) -> int:
    return sum(o.request.purpose in purposes for o in history.operations())


SLOW = dict.fromkeys((Purpose.FORCING, Purpose.CONTROL, Purpose.PROBE), 1.0)


@pytest.mark.parametrize("slow", [SLOW, {Purpose.FORCING: 5.0}, {Purpose.PROBE: 1.0}, {Purpose.CONTROL: 3.0}])
@pytest.mark.parametrize("policy", ["budget:10%", "budget:60s", "budget:2m"])
async def test_slow_servers_do_not_exceed_the_budget(policy: str, slow: dict[Purpose, float]) -> None:
    history, _ = await run(policy, slow)
    cost = verification_cost(history)
    assert cost.budget_seconds is not None
    # Once it has seen how long a request takes, the ledger leaves time for the eight that are in flight at the end.
    assert cost.seconds <= cost.budget_seconds + 8 * max(slow.values())
    assert sent(history, Purpose.FORCING) > 0
    assert not history.ended_early


async def test_slow_probes_leave_time_for_forcings() -> None:
    history, _ = await run("budget:60s", {Purpose.PROBE: 1.0})
    assert sent(history, Purpose.PROBE) <= 0.35 * 60
    assert sent(history, Purpose.FORCING) >= 100


async def test_quick_servers_answer_all_that_the_tokens_suffice_for() -> None:
    history, watcher = await run("budget:10%", {})
    cost = verification_cost(history)
    assert cost.kept
    assert "was kept" in cost.text
    # 400 requests of 50 tokens are a short load, in 80 s: 600 requests' tokens and a quarter of the time.
    assert (cost.budget_tokens, round(cost.budget_seconds or 0, 6)) == (30_000, 20.0)
    assert watcher.told[0] == (
        "verification: at most 25 % of the load's time and 10 % of its tokens (more if the load is short)"
    )
    assert watcher.told[1][2] == 30_000  # type: ignore[index]
    (planned,) = history.of(VerificationPlanned)
    # The plan does not know yet what probes will cost.
    assert planned.outputs >= cost.looked_at > max(0.9 * planned.outputs, 128)


async def test_without_limits_everything_is_verified_and_no_limit_is_announced() -> None:
    history, watcher = await run("all", {Purpose.FORCING: 50.0}, count=40)
    assert verification_cost(history).looked_at == 40
    assert [told[1:] for told in watcher.told] == [(None, None)]  # type: ignore[index]


async def test_an_interrupted_verification_says_how_far_it_came() -> None:
    history, _ = await run("sample:100", {})
    forcings = [o for o in history.operations() if o.request.purpose is Purpose.FORCING]
    late = {o.request.request_id for o in forcings if "control" in str(o.request.about)}
    late |= {o.request.request_id for o in [o for o in forcings if o.request.request_id not in late][30:]}
    left = [e for e in history.entries if getattr(e, "request_id", None) not in late and not isinstance(e, RunEnded)]
    text = verification_cost(History((*left, RunEnded(99.0, interrupted=True)))).text
    assert "verification was interrupted after 30 of 100 outputs: the others are unverified" in text
    assert "interrupted" not in verification_cost(history).text


async def test_random_outputs_do_not_take_what_is_kept_for_suspected_ones() -> None:
    history, _ = await run("budget:10%", {}, count=4000)
    cost = verification_cost(history)
    assert cost.kept
    # No output is suspected here: there are the salt test, probes, forcings and controls, for which 70 % is meant.
    assert 0.6 * (cost.budget_tokens or 0) < cost.tokens < 0.8 * (cost.budget_tokens or 0)
