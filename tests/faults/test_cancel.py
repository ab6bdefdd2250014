"""Clients that leave: who, when, and what must have been observed of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from counted_run import DEPLOYMENT
from hand_clock import HandClock
from turns import turn

from harness.clock import MonotonicClock
from harness.errors import UsageError
from harness.faults import FaultPlan, Nemesis, NoEvidence, Site, parse_fault, under_faults
from harness.faults.cancel import Cancel
from harness.faults.load_watch import LoadWatch
from harness.history import Choice, Ended, Ending, Entry, FaultBegan, FaultHealed, FaultProved, Outcome, Sent
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Moment, Phase, Request, Sampling, Scenario

MANY = [Request(f"r-{number}", (1, 2), Sampling(20)) for number in range(2000)]


# --- who leaves, and when ---


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("moment", list(Moment))
def test_the_share_that_was_asked_for_leaves(share: float, moment: Moment) -> None:
    changed = [Cancel(share, moment).changed(one) for one in MANY]
    left = [one for one in changed if one.leaves is not None]
    assert len(left) == pytest.approx(share * len(MANY), rel=0.1)
    assert {one.leaves for one in left} == {moment}
    assert [replace(one, leaves=None, leaves_after=0.0) for one in changed] == MANY


def test_clients_leave_mid_stream_after_each_number_of_tokens_but_all() -> None:
    changed = [Cancel(1.0, "stream").changed(one) for one in MANY]
    assert {one.leaves_after for one in changed} == set(map(float, range(1, 20)))


def test_who_leaves_follows_from_the_seed_and_the_request_alone() -> None:
    def leaving(seed: int, requests: list[Request]) -> set[str]:
        return {one.request_id for one in map(Cancel(0.5, seed=seed).changed, requests) if one.leaves}

    assert leaving(0, MANY) == leaving(0, MANY[::-1])
    assert leaving(0, MANY) != leaving(1, MANY)


def test_two_faults_share_the_requests() -> None:
    first = [Cancel(0.5, "stream").changed(one) for one in MANY]
    both = [Cancel(1.0, "transfer", seed=1).changed(one) for one in first]
    assert [one.leaves for one in both] == [one.leaves or Moment.TRANSFER for one in first]


@pytest.mark.parametrize("changes", [{"stream": False}, {"sampling": Sampling(1)}])
def test_nobody_leaves_in_mid_stream_where_there_is_no_stream(changes: dict[str, Any]) -> None:
    assert Cancel(1.0, "stream").changed(replace(MANY[0], **changes)).leaves is None


def test_the_load_leaves_and_the_final_reads_do_not() -> None:
    turns = (MANY[0], replace(MANY[1], continues="r-0"), MANY[2])
    scenario = Scenario("s", "", (Phase("load", turns),))
    load, *reads = under_faults(scenario, DEPLOYMENT, [parse_fault("cancel:share=1")]).phases
    assert [one.leaves for one in load.requests] == [None, Moment.STREAM, Moment.STREAM]
    assert load.faulted
    assert {one.leaves for phase in reads for one in phase.requests} == {None}


def test_final_reads_ask_for_the_beginning_of_long_answers_alone() -> None:
    turns = (replace(MANY[0], sampling=Sampling(100, min_tokens=50)), replace(MANY[1], sampling=Sampling(8)))
    load, *reads = under_faults(Scenario("s", "", (Phase("load", turns),)), DEPLOYMENT).phases
    assert [one.sampling.max_tokens for one in load.requests] == [100, 8]
    asked = [one.sampling for phase in reads for one in phase.requests if one.about]
    assert len(asked) >= 4
    assert {(one.max_tokens, one.min_tokens) for one in asked} == {(8, None), (16, 16)}


# --- the flag ---


def test_the_flag_has_no_times() -> None:
    plan = parse_fault("cancel:share=0.25,moment=transfer,seed=3")
    assert plan == FaultPlan(Cancel(0.25, "transfer", 3), after=0.0, seconds=0.0)
    for option in ("share=0", "share=2", "share=x", "moment=later", "after=1", "for=3"):
        with pytest.raises(UsageError):
            parse_fault(f"cancel:{option}")


# --- evidence ---


class Servers:
    """A prefill server, a decode server and a proxy that expose what a test sets."""

    def __init__(self) -> None:
        self.finished: dict[str, int] = {"stop": 5, "length": 0}
        self.gone: dict[str, int] = {"prefill": 0, "handover": 0, "decode": 0}
        self.running = 0
        self.started = 100.5
        self.status = 200
        self.deployment = DEPLOYMENT

    async def show(self, request: web.Request) -> web.Response:
        own = request.path.startswith("/proxy")
        lines = [f'pd_proxy_client_gone_total{{phase="{stage}"}} {n}.0' for stage, n in self.gone.items() if own]
        if request.path.startswith("/d"):
            labels = 'engine="0",finished_reason="{}",model_name="m"'
            lines = [f"vllm:request_success_total{{{labels.format(why)}}} {n}" for why, n in self.finished.items()]
        lines += [f"process_start_time_seconds {self.started}"] if not own else []
        lines += [f'vllm:num_requests_running{{engine="0"}} {self.running}.0'] if not own else []
        return web.Response(text="\n".join(["# HELP x", *lines, ""]), status=self.status)

    def site(self, load: LoadWatch | None, **fields: Any) -> Site:
        return Site(self.deployment, MonotonicClock(), load=load, patience=0.1, **fields)


@asynccontextmanager
async def serving(*, own_proxy: bool = True) -> AsyncIterator[Servers]:
    servers = Servers()
    app = web.Application()
    app.router.add_get("/{path:.*}", servers.show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}".format(*runner.addresses[0])
    prefill, decode = DEPLOYMENT.servers
    servers.deployment = replace(
        DEPLOYMENT,
        servers=(replace(prefill, url=f"{url}/p"), replace(decode, url=f"{url}/d/")),
        proxy_url=f"{url}/proxy",
        own_proxy=own_proxy,
    )
    try:
        yield servers
    finally:
        await runner.cleanup()


def watched(*ends: tuple[Moment | None, int], head: int | None = 200) -> LoadWatch:
    """A load that is over: for each request, when its client left (None: it stayed), after how many tokens.

    ``head``: the status that clients had before they left; None: nothing had arrived.
    """
    load = LoadWatch()
    record = load.beside(lambda _entry: None)
    for number, (moment, tokens) in enumerate(ends):
        request = replace(MANY[number], leaves=moment)
        record(Sent(0.0, request, "s", "load", 0.0))
        outcome, ending = (Outcome.OK, Ending.COMPLETED) if moment is None else (Outcome.INFO, Ending.LEFT)
        choices = (Choice((7,) * tokens),) if tokens else ()
        record(Ended(1.0, request.request_id, outcome, status=head, choices=choices, ending=ending))
    load.over.set()
    return load


STORM = watched((None, 20), (Moment.STREAM, 3), (Moment.STREAM, 9), (None, 20), (Moment.STREAM, 4))


async def struck(servers: Servers, load: LoadWatch, moment: str = "stream", **grown: int) -> str:
    fault = Cancel(0.5, moment)
    site = servers.site(load)
    await fault.before(site)
    for name, by in grown.items():
        counts = servers.gone if name in servers.gone else servers.finished
        counts[name] = counts.get(name, 0) + by
    return await fault.strike(site)


async def test_the_evidence_says_what_was_closed_and_what_the_servers_did() -> None:
    async with serving() as servers:
        evidence = await struck(servers, STORM, length=2, decode=3)
    closed, noticed, gone, idle = evidence.split("; ")
    assert closed == "3 of 5 clients closed their connections after 3 to 9 tokens"
    assert noticed == "decode did not finish 3 of these requests (0 counted as aborted)"
    assert gone == "the proxy saw clients leave: 3 in decode, of which at least 3 at the moment asked for"
    assert idle.startswith("all were idle 0.")


async def test_a_release_that_counts_aborted_requests_is_evidence_too() -> None:
    async with serving(own_proxy=False) as servers:
        assert "(3 counted as aborted)" in await struck(servers, STORM, length=2, abort=3)


async def test_servers_that_finish_everything_are_no_evidence() -> None:
    """A proxy that does not pass on that its client has gone."""
    async with serving(own_proxy=False) as servers:
        with pytest.raises(NoEvidence, match="decode finished all 3 requests whose clients had left"):
            await struck(servers, STORM, length=5)


@pytest.mark.parametrize("restarted", [{"started": 200.5}, {"finished": {"stop": 1}}])
async def test_a_decode_server_that_counts_from_zero_has_not_left_requests_unfinished(
    restarted: dict[str, Any],
) -> None:
    """What it has finished since a restart says nothing of the requests before."""
    async with serving(own_proxy=False) as servers:
        fault, site = Cancel(0.5, "stream"), servers.site(STORM)
        await fault.before(site)
        for name, value in restarted.items():
            setattr(servers, name, value)
        with pytest.raises(NoEvidence, match="it was restarted, and counts from zero"):
            await fault.strike(site)


async def test_a_fault_under_which_nobody_left_is_no_evidence() -> None:
    async with serving() as servers:
        with pytest.raises(NoEvidence, match="none of 2 clients left after some of their tokens"):
            await struck(servers, watched((None, 20), (None, 20)), length=1)


async def test_clients_that_left_at_another_moment_are_no_evidence() -> None:
    async with serving() as servers:
        with pytest.raises(NoEvidence, match="none of 5 clients left before their first token"):
            await struck(servers, STORM, "first-token", length=2, decode=3)


@pytest.mark.parametrize(
    ("moment", "head", "gone", "seen"),
    [
        ("transfer", None, {"handover": 1}, 1),
        # vLLM sends the head of its answer before it has the KV; the proxy keeps it until there is a token.
        ("transfer", None, {"decode": 1}, 1),
        ("transfer", None, {"prefill": 1}, 0),
        ("transfer", 200, {"decode": 1}, 0),
        ("first-token", None, {"prefill": 1}, 1),
        ("first-token", None, {"handover": 1}, 1),
        ("first-token", 200, {"decode": 1}, 0),
    ],
)
async def test_the_proxy_must_have_seen_them_leave_at_this_moment(
    moment: str, head: int | None, gone: dict[str, int], seen: int
) -> None:
    load = watched((None, 20), (Moment(moment), 0), head=head)
    async with serving() as servers:
        if seen:
            assert f"at least {seen} at the moment" in await struck(servers, load, moment, length=1, **gone)
            return
        with pytest.raises(NoEvidence, match="the proxy saw no client leave"):
            await struck(servers, load, moment, length=1, **gone)


@pytest.mark.parametrize("broken", [{"status": 500}, {"running": 1}, {"finished": {}}])
async def test_without_readable_metrics_or_idle_servers_there_is_no_evidence(broken: dict[str, Any]) -> None:
    async with serving() as servers:
        for name, value in broken.items():
            setattr(servers, name, value)
        with pytest.raises(NoEvidence, match="whether the servers noticed is not known"):
            await struck(servers, STORM, decode=3)


# --- beside a load ---


class Leaves(Cancel):
    """The fault, whose evidence the test decides."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.calls: list[str] = []
        self._text = text

    async def before(self, site: Site) -> None:  # noqa: ARG002 - as in the fault
        self.calls.append("before")

    async def strike(self, site: Site) -> str:
        assert site.load is not None
        await site.load.over.wait()
        self.calls.append(f"{site.load.sent} sent")
        if not self._text:
            raise NoEvidence("nobody left")
        return self._text


async def beside(fault: Leaves, load: Callable[[PhaseRun], Any]) -> list[Entry]:
    entries: list[Entry] = []
    clock = HandClock()
    nemesis = Nemesis([FaultPlan(fault, 0.0, 0.0)], Site(DEPLOYMENT, clock), entries.append)
    phase = Phase("load", (MANY[0],), faulted=True)
    run = PhaseRun("s", phase, _never, entries.append, clock, SILENT, Conversations(()))
    task = asyncio.create_task(nemesis.beside(load)(run))
    for _ in range(5):
        await clock.advance(0.0)
    await asyncio.gather(task, return_exceptions=True)
    return entries


async def _never(_request: Request) -> Ended:
    raise AssertionError("the load is not sent here")


def kinds(entries: list[Entry]) -> list[type]:
    return [type(entry) for entry in entries if isinstance(entry, FaultBegan | FaultProved | FaultHealed)]


@pytest.mark.parametrize(("text", "proved"), [("3 left", True), ("", False)])
async def test_the_evidence_is_looked_for_when_the_load_is_over(text: str, proved: bool) -> None:
    fault = Leaves(text)

    async def load(run: PhaseRun) -> None:
        assert fault.calls == ["before"], "read before the first request is sent"
        run.record(Sent(0.0, MANY[0], "s", "load", 0.0))
        await turn()
        assert fault.calls == ["before"]

    entries = await beside(fault, load)
    assert fault.calls == ["before", "1 sent"]
    assert kinds(entries) == [FaultBegan, *([FaultProved] if proved else []), FaultHealed]
    assert isinstance(entries[-1], FaultHealed)
    assert ("it was not observed that the fault took hold" in entries[-1].text) is not proved


async def test_a_load_that_fails_is_not_waited_for() -> None:
    fault = Leaves("3 left")

    async def load(_run: PhaseRun) -> None:
        for _ in range(3):
            await turn()
        raise OSError

    entries = await beside(fault, load)
    assert kinds(entries) == [FaultBegan, FaultHealed]
