"""A fault on a link is proved by what its relay counted, and a relay that relays proves nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from counted_run import DEPLOYMENT
from hand_clock import HandClock
from polling import until
from relayed import Inert, Near

from harness.checkers.faults import faults
from harness.errors import UsageError
from harness.faults import FaultPlan, Nemesis, Site, parse_fault
from harness.faults.link import Link
from harness.faults.relay import Relay
from harness.history import Entry, FaultHealed, FaultProved, History, Tolerated
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Phase, Request
from harness.verdict import Verdict

HOWS = ("delay", "throttle", "cut", "half-open", "idle")
SHORT = {"ms": 10.0, "rate": 100.0, "idle": 0.4}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers whatever is said, as a server that is asked for its health does."""
    try:
        while await reader.read(1 << 16):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says something first, as ZMTP's peers do, and ends."""
    writer.write(b"\xff")
    await writer.drain()
    writer.close()


class Talk:
    """A client that asks again and again over one connection, and makes a new one if that breaks."""

    def __init__(self, port: int, *, pauses_at: float = float("inf"), clock: HandClock) -> None:
        self.task = asyncio.create_task(self._talk(port, pauses_at, clock))

    async def _talk(self, port: int, pauses_at: float, clock: HandClock) -> None:
        while True:
            await clock.sleep(0.1)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            try:
                while True:
                    writer.write(b"question")
                    await reader.read(1 << 16)
                    await clock.sleep(1.0 if clock.now() >= pauses_at else 0.1)
                    if reader.at_eof():
                        break
            except OSError:
                pass
            finally:
                writer.transport.abort()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Faulted:
    """A load that talks over a link until the test ends it, and the fault beside it."""

    def __init__(self, relay: Relay, clock: HandClock, fault: Link, *, talks: bool = True) -> None:
        self.clock, self.entries = clock, list[Entry]()
        site = Site(replace(DEPLOYMENT), clock, relays=Near({fault.link: relay}))
        self._over = asyncio.Event()
        self._talk = Talk(relay.port, pauses_at=1.0 if fault.how == "idle" else float("inf"), clock=clock)
        self._talks = talks
        nemesis = Nemesis([FaultPlan(fault, after=1.0, seconds=2.0)], site, self.entries.append)
        phase = Phase("load", (Request("r", (1,)),), faulted=True)
        run = PhaseRun("s", phase, _never, self.entries.append, clock, SILENT, Conversations(()))
        self._task: asyncio.Task[None] = asyncio.ensure_future(nemesis.beside(self._load)(run))  # type: ignore[arg-type]

    async def _load(self, _run: PhaseRun) -> None:
        if not self._talks:
            await self._talk.stop()
        await self._over.wait()

    async def ended(self) -> History:
        """The history when the fault has been healed; the clock goes on meanwhile."""

        def healed() -> bool:
            return any(isinstance(entry, FaultHealed) for entry in self.entries)

        for _ in range(400):
            if healed():
                break
            await self.clock.advance(self.clock.now() + 0.05)
        await until(healed, "the fault was never healed")
        self._over.set()
        await self._task
        await self._talk.stop()
        return History(tuple(self.entries))


async def _never(_request: Request) -> None:  # type: ignore[misc] # a sender that is never called
    raise AssertionError


@asynccontextmanager
async def _relayed(kind: type[Relay], answer: object = _serve) -> AsyncIterator[tuple[Relay, HandClock]]:
    clock = HandClock()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)  # type: ignore[arg-type] # one of the two above
    relay = kind(0, "127.0.0.1", server.sockets[0].getsockname()[1], clock)
    await relay.start()
    try:
        yield relay, clock
    finally:
        await relay.stop()
        server.close()
        await server.wait_closed()


def _proofs(history: History) -> list[str]:
    return [entry.evidence for entry in history.of(FaultProved)]


@pytest.mark.parametrize("how", HOWS)
async def test_each_kind_is_proved_by_the_relay_and_healed(how: str) -> None:
    async with _relayed(Relay) as (relay, clock):
        history = await Faulted(relay, clock, Link(how=how, **SHORT)).ended()
    assert _proofs(history)
    (healed,) = history.of(FaultHealed)
    assert healed.healed, healed.text
    assert healed.text.endswith("answers through the relay")


@pytest.mark.parametrize("how", HOWS)
async def test_a_relay_that_relays_leaves_the_run_unknown(how: str) -> None:
    """The broken target: nothing was done to the link, so nothing was tested."""
    async with _relayed(Inert) as (relay, clock):
        history = await Faulted(relay, clock, Link(how=how, **SHORT)).ended()
    assert _proofs(history) == []
    check = faults(DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert "relay" in check.summary


class Once(Relay):
    """A relay that does what it is told, and so again when it passes bytes, but obeys no later order."""

    told = 0

    async def tell(self, order: Mapping[str, object]) -> dict[str, float]:
        self.told += 1
        return await super().tell(order) if self.told <= 2 else self.counted()


@pytest.mark.parametrize("how", HOWS)
async def test_what_a_relay_counted_of_an_earlier_fault_is_no_evidence_of_a_later_one(how: str) -> None:
    async with _relayed(Once) as (relay, clock):
        first = await Faulted(relay, clock, Link(how=how, **SHORT)).ended()
        second = await Faulted(relay, clock, Link(how=how, **SHORT)).ended()
    assert _proofs(first)
    assert _proofs(second) == []
    assert faults(DEPLOYMENT, second).verdict is Verdict.UNKNOWN


async def test_a_throttled_link_on_which_no_byte_had_to_wait_is_no_evidence() -> None:
    async with _relayed(Relay) as (relay, clock):
        history = await Faulted(relay, clock, Link(how="throttle", rate=1e6)).ended()
    assert _proofs(history) == []
    assert "no byte waited for 10 ms" in faults(DEPLOYMENT, history).summary


@pytest.mark.parametrize("how", HOWS)
async def test_without_a_byte_on_the_link_there_is_no_evidence(how: str) -> None:
    async with _relayed(Relay) as (relay, clock):
        history = await Faulted(relay, clock, Link(how=how, **SHORT), talks=False).ended()
    assert _proofs(history) == []
    assert faults(DEPLOYMENT, history).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("how", ["delay", "cut", "half-open"])
async def test_the_side_channel_is_proved_by_attempts_and_healed_by_a_greeting(how: str) -> None:
    async with _relayed(Relay, _greet) as (relay, clock):
        history = await Faulted(relay, clock, Link("side-channel", how, **SHORT)).ended()
    assert _proofs(history)
    (healed,) = history.of(FaultHealed)
    assert healed.healed, healed.text


async def test_a_cut_link_that_still_passes_bytes_is_not_healed() -> None:
    async with _relayed(Relay) as (relay, clock):
        run = Faulted(relay, clock, Link(how="cut"))
        await until(lambda: clock.now() >= 0)
        while not any(isinstance(entry, FaultProved) for entry in run.entries):
            await clock.advance(clock.now() + 0.05)
        relay.counts.passed += 7
        history = await run.ended()
    (healed,) = history.of(FaultHealed)
    assert not healed.healed
    assert "7 bytes passed" in healed.text


def test_a_link_that_loses_nothing_excuses_nothing() -> None:
    assert Link(how="delay").tolerates == Link(how="throttle").tolerates == ()
    assert Tolerated.ERRORS in Link(how="cut").tolerates
    assert Tolerated.ERRORS in Link(link="side-channel", how="delay").tolerates


def test_options_are_read_and_others_refused() -> None:
    plan = parse_fault("link:link=prefill-0,how=throttle,rate=1000,after=2,for=4")
    assert plan.fault.target == plan.relayed == "prefill-0"
    assert "1,000 bytes/s" in plan.fault.text
    for bad in ("link:how=melt", "link:how=delay,ms=0", "link:how=delay,ms=soon", "link:where=here"):
        with pytest.raises(UsageError):
            parse_fault(bad)
