"""How an operation ended: determined by client and runner, kept in the history, and judged by completion."""

import asyncio
from dataclasses import replace

import counted_run as run
import load_wire as wire
import pytest
from aiohttp import web
from jumping_clock import JumpingClock

from harness.checkers.completion import completion
from harness.clock import MonotonicClock
from harness.history import Ended, Ending, Entry, History, Outcome, RunEnded, Sent
from harness.load.client import Client
from harness.run.runner import run_scenario
from harness.scenario import Phase, Purpose, Request, Route, Sampling, Scenario
from harness.store import decode_entry, encode_entry
from harness.verdict import Check, Verdict

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN
REQUEST = Request("r-1", (1, 2, 3), Sampling(3))
TOKEN = wire.completion_chunk([11], text="a", prompt_token_ids=[1, 2, 3])
LAST = wire.completion_chunk([12], text="b", finish="length")


async def ask(script: wire.Script, request: Request = REQUEST, within: float = 20.0) -> Ended:
    async with (
        wire.serving(script) as url,
        Client({Route.PROXY: [url]}, model="m", clock=MonotonicClock(), timeout=within) as client,
    ):
        return await client.send(request)


def stalls(*pieces: bytes, status: int = 200) -> wire.Script:
    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await asyncio.Event().wait()
        return response

    return script


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (wire.streams(wire.whole_stream()), Ending.COMPLETED),
        (wire.answers(500, "upstream timeout"), Ending.REFUSED),
        (wire.answers(404, "no such model"), Ending.REFUSED),
        (wire.streams(wire.sse(TOKEN, wire.ERROR) + wire.DONE), Ending.ERROR_INSIDE),
        (wire.streams(wire.sse(TOKEN, LAST)), Ending.UNFINISHED),
        (wire.streams(wire.sse(TOKEN) + wire.DONE), Ending.UNFINISHED),
        (wire.streams(b"data: {oops\n\n" + wire.whole_stream()), Ending.UNFINISHED),
        (wire.cuts(wire.sse(TOKEN)), Ending.CUT),
    ],
)
async def test_the_client_determines_how_the_server_ended_an_operation(script: wire.Script, ending: Ending) -> None:
    assert (await ask(script)).ending is ending


@pytest.mark.parametrize("begun", [(), (wire.sse(TOKEN),)])
async def test_the_clients_time_limit_is_not_a_broken_connection(begun: tuple[bytes]) -> None:
    ended = await ask(stalls(*begun), within=0.05)
    assert (ended.ending, ended.status) == (Ending.TIMED_OUT, 200)


async def test_a_refusal_whose_body_times_out_is_still_a_refusal() -> None:
    ended = await ask(stalls(b"boom", status=500), within=0.05)
    assert (ended.ending, ended.status) == (Ending.REFUSED, 500)


async def test_an_unsent_request_lacked_a_server_or_a_connection() -> None:
    async with Client({Route.PROXY: ["http://127.0.0.1:1"]}, model="m", clock=MonotonicClock(), timeout=20) as client:
        assert (await client.send(REQUEST)).ending is Ending.NOT_CONNECTED
        assert (await client.send(replace(REQUEST, route=Route.DECODE))).ending is Ending.NOT_SENT


class _NoCounters:
    """Reads nothing."""

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Do nothing."""

    def disturbed(self) -> None:
        """Do nothing."""


async def carried_out(send: object, *requests: Request) -> dict[str, Ended]:
    entries: list[Entry] = []
    phase = Phase("p", requests)
    scenario = Scenario("s", "to test", (phase,))
    try:
        async with asyncio.timeout(0.05):
            await run_scenario(scenario, send=send, counters=_NoCounters(), record=entries.append, clock=JumpingClock())  # type: ignore[arg-type]
    except TimeoutError:
        pass
    return {entry.request_id: entry for entry in entries if isinstance(entry, Ended)}


async def test_the_runner_records_the_endings_that_it_causes() -> None:
    async def crash(_request: Request) -> Ended:
        raise ZeroDivisionError("planted")

    async def wait(_request: Request) -> Ended:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    turns = (Request("a", (1,)), Request("b", (2,), continues="a"))
    crashed = await carried_out(crash, *turns)
    assert {name: one.ending for name, one in crashed.items()} == {
        "a": Ending.CLIENT_CRASHED,
        "b": Ending.NOT_SENT,
    }
    assert (await carried_out(wait, Request("a", (1,))))["a"].ending is Ending.INTERRUPTED


def test_an_operation_without_an_end() -> None:
    (operation,) = History((Sent(0.0, REQUEST, "s", "p", 0.0),)).operations()
    assert operation.ended.ending is Ending.NO_END


@pytest.mark.parametrize(
    ("outcome", "status", "cause", "ending"),
    [
        ("ok", 200, "", Ending.COMPLETED),
        ("info", 500, "status 500: timeout", Ending.REFUSED),
        ("fail", None, "not sent: Cannot connect to host x:1", Ending.NOT_CONNECTED),
        ("fail", None, "not sent: The request goes to a server", Ending.NOT_SENT),
        ("fail", None, "not sent: it continues a, which has no answer", Ending.NOT_SENT),
        ("info", 200, "no end of the answer within 60 s", Ending.TIMED_OUT),
        ("info", None, "no end of the answer within 60 s", Ending.TIMED_OUT),
        ("info", 200, "cut: ClientPayloadError: x", Ending.CUT),
        ("info", None, "cut: ServerDisconnectedError: x", Ending.CUT),
        ("info", 200, "error inside a 200: timeout", Ending.ERROR_INSIDE),
        ("info", 200, "no finish_reason", Ending.UNFINISHED),
        ("info", None, "the client crashed: ZeroDivisionError: x", Ending.CLIENT_CRASHED),
        ("info", None, "interrupted", Ending.INTERRUPTED),
        ("info", None, "whatever", Ending.NO_END),
    ],
)
def test_a_history_of_an_older_version_is_read(outcome: str, status: int | None, cause: str, ending: Ending) -> None:
    said = "null" if status is None else status
    line = f'{{"kind":"ended","at":1.0,"request_id":"a","outcome":"{outcome}","status":{said},"cause":"{cause}"}}'
    entry = decode_entry(line)
    assert isinstance(entry, Ended)
    assert entry.ending is ending
    assert decode_entry(encode_entry(entry)) == entry


# The checker completion


def judged(outcome: Outcome, status: int | None, ending: Ending, cause: str = "boom", **request: object) -> Check:
    """The check, for one request that ended like this and one that completed."""
    odd = replace(run.request(0), **request)  # type: ignore[arg-type]
    ends = run.operation(odd, outcome=outcome, status=status, ending=ending, cause=cause, choices=())
    return completion(run.DEPLOYMENT, run.history(operations=(*ends, *run.operation(run.request(1)))))


CAUSES = ("boom", "timeout", "timed out", "the client crashed", "interrupted", "not sent", "")


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(
    ("outcome", "status", "ending", "verdict"),
    [
        (Outcome.INFO, 500, Ending.REFUSED, INVALID),
        (Outcome.INFO, 502, Ending.REFUSED, INVALID),
        (Outcome.INFO, 503, Ending.REFUSED, INVALID),
        (Outcome.INFO, 504, Ending.REFUSED, INVALID),
        (Outcome.FAIL, 400, Ending.REFUSED, INVALID),
        (Outcome.FAIL, 404, Ending.REFUSED, INVALID),
        (Outcome.INFO, 204, Ending.REFUSED, INVALID),
        (Outcome.FAIL, 401, Ending.REFUSED, UNKNOWN),
        (Outcome.FAIL, 403, Ending.REFUSED, UNKNOWN),
        (Outcome.INFO, 408, Ending.REFUSED, UNKNOWN),
        (Outcome.FAIL, 429, Ending.REFUSED, UNKNOWN),
        (Outcome.INFO, 307, Ending.REFUSED, UNKNOWN),
        (Outcome.INFO, 200, Ending.ERROR_INSIDE, INVALID),
        (Outcome.INFO, 200, Ending.UNFINISHED, INVALID),
        (Outcome.INFO, 200, Ending.CUT, INVALID),
        (Outcome.INFO, None, Ending.CUT, UNKNOWN),
        (Outcome.INFO, 200, Ending.TIMED_OUT, UNKNOWN),
        (Outcome.INFO, None, Ending.TIMED_OUT, UNKNOWN),
        (Outcome.FAIL, None, Ending.NOT_CONNECTED, UNKNOWN),
        (Outcome.FAIL, None, Ending.NOT_SENT, UNKNOWN),
        (Outcome.INFO, None, Ending.CLIENT_CRASHED, UNKNOWN),
        (Outcome.INFO, None, Ending.INTERRUPTED, UNKNOWN),
        (Outcome.INFO, None, Ending.NO_END, UNKNOWN),
    ],
)
def test_the_ending_decides_and_not_the_text_of_the_cause(
    outcome: Outcome, status: int | None, ending: Ending, verdict: Verdict, cause: str
) -> None:
    check = judged(outcome, status, ending, cause)
    assert check.verdict is verdict
    assert [finding.subject for finding in check.findings] == ["r0"]


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "--header"), (403, "--header"), (429, "--concurrency"), (302, "redirect")]
)
def test_a_refusal_that_the_user_can_avoid_has_advice(status: int, advice: str) -> None:
    check = judged(Outcome.INFO, status, Ending.REFUSED)
    assert advice in check.findings[0].text
    assert advice in check.summary


@pytest.mark.parametrize("purpose", [Purpose.PROBE, Purpose.RETRY, Purpose.OWNER_TEST])
@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_request_of_the_verification_is_unknown_at_most(purpose: Purpose, status: int) -> None:
    check = judged(Outcome.INFO, status, Ending.REFUSED, purpose=purpose, about="r1")
    assert check.verdict is UNKNOWN
    assert check.summary.startswith("1 of 1 requests completed; 1 that verify other requests failed")


def test_completion_ignores_failed_references() -> None:
    assert judged(Outcome.INFO, 500, Ending.REFUSED, purpose=Purpose.REFERENCE, about="r1").verdict is VALID


def test_findings_that_are_evidence_come_first() -> None:
    slow = run.operation(run.request(0), outcome=Outcome.INFO, status=None, ending=Ending.TIMED_OUT, choices=())
    broken = run.operation(run.request(1), outcome=Outcome.INFO, status=500, ending=Ending.REFUSED, choices=())
    check = completion(run.DEPLOYMENT, History((*slow, *broken, RunEnded(9.0))))
    assert (check.verdict, check.findings[0].subject) == (INVALID, "r1")


def test_the_verdict_on_requests_that_should_be_refused() -> None:
    assert judged(Outcome.INFO, None, Ending.TIMED_OUT, expect_status=400).verdict is UNKNOWN
    assert judged(Outcome.INFO, 200, Ending.UNFINISHED, expect_status=400).verdict is INVALID
    assert judged(Outcome.INFO, 200, Ending.TIMED_OUT, expect_status=400).verdict is INVALID
    assert judged(Outcome.FAIL, 401, Ending.REFUSED, expect_status=400).verdict is UNKNOWN
    assert judged(Outcome.FAIL, 400, Ending.REFUSED, expect_status=400).verdict is VALID
