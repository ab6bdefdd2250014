"""Spoiled metrics leave the harness without knowledge, never with a wrong one."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from counted_run import DEPLOYMENT
from hand_clock import HandClock
from polling import until
from simulated import simulated

from harness.checkers.faults import faults
from harness.faults import FaultPlan, Nemesis, Site, parse_fault, relay_metrics
from harness.faults.metrics import Metrics
from harness.faults.metrics_spoiled import Spoiling, first_half, from_zero, with_nan
from harness.faults.relay_metrics import MetricsRelay
from harness.history import Entry, FaultHealed, FaultProved, History, Scraped, ScrapeFailed
from harness.observe import scrape as reading
from harness.observe.counters import read_counters
from harness.observe.growth import delta
from harness.observe.scrape import Occasion
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Phase, Request
from harness.verdict import Verdict

TEXT = """# HELP process_start_time_seconds Start time.
process_start_time_seconds 1000.5
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0"} 50.0
vllm:num_requests_running{engine="0",model="a b"} 2.0
vllm:nixl_bytes_transferred_bucket{le="+Inf"} 4.0
"""


def test_all_values_become_nan() -> None:
    assert with_nan(TEXT) == (
        "# HELP process_start_time_seconds Start time.\n"
        "process_start_time_seconds NaN\n"
        "# TYPE vllm:prompt_tokens_total counter\n"
        'vllm:prompt_tokens_total{engine="0"} NaN\n'
        'vllm:num_requests_running{engine="0",model="a b"} NaN\n'
        'vllm:nixl_bytes_transferred_bucket{le="+Inf"} NaN\n'
    )


def test_counters_begin_again_from_zero_and_gauges_do_not() -> None:
    later = TEXT.replace("50.0", "57.0").replace(" 4.0", " 5.0")
    assert from_zero(later, TEXT, 2000.0) == TEXT.replace("1000.5", "2000.0").replace("50.0", "7.0").replace(
        " 4.0", " 1.0"
    )


def test_a_short_answer_ends_with_a_line() -> None:
    half = first_half(TEXT)
    assert TEXT.startswith(half)
    assert half.endswith("\n")
    assert 0 < len(half) <= len(TEXT) / 2


@asynccontextmanager
async def _relayed(url: str, kind: type[MetricsRelay] = MetricsRelay) -> AsyncIterator[MetricsRelay]:
    relay = kind(0, url)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@pytest.mark.parametrize("how", [spoiling for spoiling in Spoiling if spoiling is not Spoiling.NOTHING])
async def test_what_is_spoiled_is_not_taken_for_counters(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated() as sim, _relayed(sim.facts().servers[0].url) as relay, aiohttp.ClientSession() as session:
        server = replace(sim.facts().servers[0], url=f"http://127.0.0.1:{relay.port}")
        before = await reading.scrape(session, server, HandClock(), Occasion("s", "p", "before"))
        assert isinstance(before, Scraped)
        await relay.tell({"how": how})
        if how == Spoiling.SLOW:
            monkeypatch.setattr(reading, "TIMEOUT", 0.2)
        after = await reading.scrape(session, server, HandClock(), Occasion("s", "p", "after"))
        assert relay.counted()["spoiled"] == 1
        await relay.tell({"how": Spoiling.NOTHING})
        monkeypatch.undo()
        again = await reading.scrape(session, server, HandClock(), Occasion("s", "p", "after"))
    assert isinstance(again, Scraped)
    assert delta(read_counters(before), read_counters(again)).of("prompt_tokens") == 0
    if how in (Spoiling.NAN, Spoiling.RESTARTED):
        assert isinstance(after, Scraped)
        assert delta(read_counters(before), read_counters(after)).of("prompt_tokens") is None
    else:
        assert isinstance(after, ScrapeFailed)


@pytest.mark.parametrize("how", [Spoiling.NAN, Spoiling.RESTARTED])
async def test_a_page_that_came_out_as_it_went_in_was_not_spoiled(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the servers write their metrics in a form that the relay does not know."""
    monkeypatch.setattr(relay_metrics, "with_nan", lambda text: text)
    monkeypatch.setattr(relay_metrics, "from_zero", lambda text, *_: text)
    async with simulated() as sim, _relayed(sim.facts().servers[1].url) as relay:
        await relay.tell({"how": how})
        assert await _status(relay) == 200
        counts = relay.counted()
    assert (counts["spoiled"], counts["passed"]) == (0, 1)


class Near:
    """One relay of the test's own process."""

    def __init__(self, relay: MetricsRelay) -> None:
        self.relay = relay

    @property
    def urls(self) -> Mapping[str, str]:
        return {"metrics-decode-0": f"http://127.0.0.1:{self.relay.port}"}

    async def tell(self, _name: str, **order: object) -> Mapping[str, float]:
        return await self.relay.tell(order)

    async def counted(self, _name: str) -> Mapping[str, float]:
        return self.relay.counted()

    async def reads_metrics(self, _name: str) -> bool:
        return await _status(self.relay) == 200


class Inert(MetricsRelay):
    """Spoils nothing, whatever it is told."""

    async def tell(self, order: Mapping[str, object]) -> dict[str, float]:  # noqa: ARG002 - that is its fault
        return self.counted()


async def _status(relay: MetricsRelay) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{relay.port}/metrics") as answer,
    ):
        return answer.status


class Faulted:
    """A run whose load has ended, with the fault planned for its metrics."""

    def __init__(self, relay: MetricsRelay) -> None:
        self.clock, self.entries = HandClock(), list[Entry]()
        site = Site(DEPLOYMENT, self.clock, relays=Near(relay))
        plan = FaultPlan(Metrics(), after=0.0, seconds=5.0)
        self.nemesis = Nemesis([plan], site, self.entries.append)
        self._loading = self.nemesis.beside(self._load)

    async def _load(self, _run: PhaseRun) -> None:
        await self.clock.sleep(1.0)

    async def phase(self, *, faulted: bool) -> None:
        """Send a phase; the clock goes on as long as it takes."""
        phase = Phase("load", (Request("r", (1,)),), faulted=faulted)
        run = PhaseRun("s", phase, _never, self.entries.append, self.clock, SILENT, Conversations(()))
        sending: asyncio.Future[None] = asyncio.ensure_future(self._loading(run))  # type: ignore[arg-type]
        await self.until(sending.done)
        await sending

    async def until(self, holds: object) -> None:
        async def tick() -> None:
            while not holds():  # type: ignore[operator] # a condition
                await self.clock.advance(self.clock.now() + 0.05)

        await asyncio.wait_for(tick(), 20)

    def has(self, kind: type[Entry]) -> bool:
        return any(isinstance(entry, kind) for entry in self.entries)


async def _never(_request: Request) -> None:  # type: ignore[misc] # a sender that is never called
    raise AssertionError


async def test_the_fault_outlasts_the_load_and_its_time_counts_from_the_first_spoiled_reading() -> None:
    async with simulated() as sim, _relayed(sim.facts().servers[1].url) as relay:
        run = Faulted(relay)
        await run.phase(faulted=True)
        await run.clock.advance(100.0)
        assert not run.has(FaultProved)
        assert not run.has(FaultHealed)
        assert await _status(relay) == 500
        await run.until(lambda: run.has(FaultProved))
        proved = run.clock.now()
        await run.until(lambda: run.has(FaultHealed))
        assert 4.9 < run.clock.now() - proved < 10.0
        assert await _status(relay) == 200
        await run.nemesis.end()


async def test_it_is_healed_before_anything_else_is_sent() -> None:
    async with simulated() as sim, _relayed(sim.facts().servers[1].url) as relay:
        run = Faulted(relay)
        await run.phase(faulted=True)
        assert await _status(relay) == 500
        await run.until(lambda: run.has(FaultProved))
        await run.phase(faulted=False)
        (healed,) = History(tuple(run.entries)).of(FaultHealed)
        assert healed.healed
        assert "1 reading" in healed.text
        assert await _status(relay) == 200


@pytest.mark.parametrize("kind", [MetricsRelay, Inert])
async def test_without_a_spoiled_reading_the_run_is_unknown(kind: type[MetricsRelay]) -> None:
    """Nobody read the metrics, or (the broken target) the relay spoiled nothing."""
    async with simulated() as sim, _relayed(sim.facts().servers[1].url, kind) as relay:
        run = Faulted(relay)
        await run.phase(faulted=True)
        if kind is Inert:
            assert await _status(relay) == 200
        await run.clock.advance(2.0)
        await run.nemesis.end()
    await until(lambda: run.has(FaultHealed))
    assert not run.has(FaultProved)
    assert faults(DEPLOYMENT, History(tuple(run.entries))).verdict is Verdict.UNKNOWN


def test_options_are_read() -> None:
    plan = parse_fault("metrics:server=prefill-0,how=nan,for=60")
    assert plan.outlasts_load
    assert plan.relayed == "metrics-prefill-0"
