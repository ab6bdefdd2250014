"""Waiting until a deployment has settled, with a clock that does not wait."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import counted_run as run
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from jumping_clock import JumpingClock

from harness.facts import Role, Server
from harness.history import Entry, Scraped, ScrapeFailed
from harness.observe.counters import SAMPLE_NAMES, read_counters
from harness.observe.exposition import parse
from harness.observe.observer import DeploymentObserver, SettledObserver
from harness.observe.scrape import Occasion
from harness.observe.settle import AGREEING, Readings, Settled, settle

QUIET = run.DECODE
Script = Callable[[int], Mapping[str, float] | None]


class Scripted:
    """Reads one server whose values at each reading come from the script; None is a failed reading."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.count = 0

    async def __call__(self) -> dict[str, Scraped | ScrapeFailed]:
        values = self.script(self.count)
        self.count += 1
        if values is None:
            return {"decode-0": ScrapeFailed(0.0, "decode-0", "after", "cold", "load", "connection refused")}
        return {"decode-0": run.reading("decode-0", "after", values)}


def scraped(occasion: Occasion, at: float, values: Mapping[str, float]) -> Scraped:
    samples = parse(run.text(values), SAMPLE_NAMES).samples
    return Scraped(at, "decode-0", occasion.label, occasion.scenario, occasion.phase, samples)


async def settled_after(script: Script, *, baseline: float | None = 0.0, deadline: float = 45.0) -> tuple[Settled, int]:
    reader = Scripted(script)
    usage = None if baseline is None else {"decode-0": baseline}
    return await settle(reader, JumpingClock(), baseline=usage, deadline=deadline), reader.count


async def test_a_settled_deployment_needs_three_readings_in_at_most_a_fifth_of_a_second() -> None:
    result, count = await settled_after(lambda _: QUIET)
    assert (result.settled, count) == (True, AGREEING)
    assert result.seconds <= 0.2


async def test_settling_waits_for_running_and_waiting_requests_and_pinned_chunks() -> None:
    for name in ("running", "waiting", "pinned"):
        result, count = await settled_after(lambda n, name=name: QUIET | {name: 1 if n < 10 else 0})
        assert result.settled, name
        assert count >= 10 + AGREEING


async def test_settling_waits_until_blocks_are_released() -> None:
    result, count = await settled_after(lambda n: QUIET | {"kv_usage": 0.5 if n < 7 else 0.25}, baseline=0.25)
    assert result.settled
    assert count == 7 + AGREEING


async def test_a_deployment_whose_counters_change_has_not_settled() -> None:
    result, _ = await settled_after(lambda n: QUIET | {"store": n}, deadline=5)
    assert not result.settled
    assert "still change" in result.because["decode-0"]


async def test_a_leak_is_reported_at_the_deadline() -> None:
    result, _ = await settled_after(lambda _: QUIET | {"kv_usage": 0.5}, deadline=45)
    assert not result.settled
    assert "50.00% of its KV blocks are still held" in result.because["decode-0"]
    assert 44 < result.seconds <= 46


async def test_the_first_reading_accepts_blocks_that_were_leaked_before() -> None:
    result, _ = await settled_after(lambda _: QUIET | {"kv_usage": 0.5}, baseline=None)
    assert result.settled
    running, _ = await settled_after(lambda _: QUIET | {"kv_usage": 0.5, "running": 1}, baseline=None)
    assert not running.settled


async def test_waiting_ends_early_if_a_server_is_gone() -> None:
    result, _ = await settled_after(lambda _: None)
    assert result.because == {"decode-0": "connection refused"}
    assert result.seconds < 10


async def test_one_failed_reading_does_not_prevent_settling() -> None:
    result, _ = await settled_after(lambda n: None if n == 1 else QUIET)
    assert result.settled


async def test_waiting_ends_early_if_a_gauge_is_missing() -> None:
    without = {name: value for name, value in QUIET.items() if name != "running"}
    result, count = await settled_after(lambda _: without)
    assert not result.settled
    assert count == AGREEING


@given(st.lists(st.sampled_from(["quiet", "running", "held", "moving", "failed"]), max_size=30))
def test_settling_always_needs_three_equal_quiet_readings(sequence: list[str]) -> None:
    seen: list[Mapping[str, float] | None] = []

    def script(n: int) -> Mapping[str, float] | None:
        what = sequence[n] if n < len(sequence) else "quiet"
        change = {"running": {"running": 1}, "held": {"kv_usage": 0.5}, "moving": {"prompt": 1000 + n}}
        seen.append(None if what == "failed" else QUIET | change.get(what, {}))
        return seen[-1]

    result, _ = asyncio.run(settled_after(script))
    if result.settled:
        last = seen[-AGREEING:]
        assert len(last) == AGREEING
        assert last.count(last[0]) == AGREEING
        assert last[0] is not None
        assert last[0]["running"] == 0 == last[0]["kv_usage"]
    else:
        assert result.seconds >= 5


async def test_the_observer_records_every_server_and_marks_unsettled_readings() -> None:
    held = 0.0

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=run.text(run.DECODE | {"kv_usage": held}))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    recorded: list[Entry] = []
    async with TestServer(app) as server, ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        servers = [Server(f"decode-{i}", Role.DECODE, url) for i in range(2)]
        observer = DeploymentObserver(servers, session, JumpingClock(), recorded.append, deadline=1)
        await observer.read(scenario="cold", phase="load", label="before")
        observer.disturbed()
        held = 0.5
        await observer.read(scenario="cold", phase="load", label="after")
    before, after = recorded[:2], recorded[2:]
    assert [(e.server, e.label, e.settled) for e in before] == [
        (name, "before", True) for name in ("decode-0", "decode-1")
    ]
    assert {e.settled for e in after} == {False}
    assert "still held" in after[0].unsettled_because
    assert read_counters(after[0]).prompt_tokens == 228


async def test_the_last_reading_is_recorded_again_if_no_request_was_sent_since() -> None:
    taken: list[int] = []
    recorded: list[Entry] = []

    async def read_all(occasion: Occasion) -> Readings:
        taken.append(1)
        return {"decode-0": scraped(occasion, 1.0, run.DECODE)}

    observer = SettledObserver(read_all, JumpingClock(), recorded.append)
    await observer.read(scenario="cold", phase="one", label="after")
    await observer.read(scenario="warm", phase="two", label="before")
    assert len(taken) == AGREEING
    first, again = recorded
    assert isinstance(first, Scraped)
    assert again == replace(first, scenario="warm", phase="two", label="before")
    observer.disturbed()
    await observer.read(scenario="warm", phase="two", label="after")
    assert len(taken) == 2 * AGREEING


async def test_leaked_blocks_are_waited_for_only_once() -> None:
    clock, held = JumpingClock(), 0.0
    recorded: list[Entry] = []

    async def read_all(occasion: Occasion) -> Readings:
        return {"decode-0": scraped(occasion, clock.now(), run.DECODE | {"kv_usage": held})}

    async def seconds_of(label: str) -> float:
        observer.disturbed()
        began = clock.now()
        await observer.read(scenario="s", phase="p", label=label)
        return clock.now() - began

    observer = SettledObserver(read_all, clock, recorded.append, deadline=45)
    assert await seconds_of("before") < 1
    held = 0.25
    assert await seconds_of("after") >= 45
    assert await seconds_of("before") < 1
    held = 0.5
    assert await seconds_of("after") >= 45
    assert [entry.settled for entry in recorded if isinstance(entry, Scraped)] == [True, False, True, False]


async def test_the_observer_records_a_failed_reading() -> None:
    recorded: list[Entry] = []
    async with ClientSession() as session:
        servers = [Server("decode-0", Role.DECODE, "http://127.0.0.1:9")]
        observer = DeploymentObserver(servers, session, JumpingClock(), recorded.append, deadline=1)
        await observer.read(scenario="cold", phase="load", label="before")
    assert isinstance(recorded[0], ScrapeFailed)
    assert "http://127.0.0.1:9/metrics" in recorded[0].cause
