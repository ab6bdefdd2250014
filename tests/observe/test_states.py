"""Whether servers are up is told during the whole run, each change once, and nothing that only this process missed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hand_clock import HandClock
from jumping_clock import JumpingClock
from polling import until

from harness.facts import Role, Server
from harness.history import Sampled
from harness.observe import states as module
from harness.observe.states import ServerStates

NOWHERE = Server("decode-0", Role.DECODE, "http://127.0.0.1:1")


class Told:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended: dict[str, int] = {}

    def __call__(self, name: str, state: str) -> None:
        self.lines.append(f"{name} {state}")

    def states(self, *servers: Server, clock: JumpingClock | None = None) -> ServerStates:
        return ServerStates(servers, clock or JumpingClock(), self, lambda: self.ended)


@asynccontextmanager
async def answering(status: int, asked: list[str]) -> AsyncIterator[Server]:
    """A server that answers everything with a status."""

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else None)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server:
        yield Server("decode-0", Role.DECODE, str(server.make_url("")).rstrip("/"))


@pytest.mark.parametrize(
    ("status", "state"), [(200, "up"), (404, "up"), (401, "up"), (302, "up"), (503, "not answering: HTTP 503")]
)
async def test_any_answer_counts_but_a_server_s_own_error(status: int, state: str) -> None:
    told, asked = Told(), list[str]()
    async with answering(status, asked) as server, told.states(server).followed({}):
        await until(lambda: len(asked) > 2)
    assert told.lines == [f"decode-0 {state}"]
    assert set(asked) == {"/health"}


async def test_a_server_that_goes_away_and_comes_back_is_told_of_twice() -> None:
    told = Told()
    states = told.states(NOWHERE)
    states.recorded(Sampled(1.0, "decode-0", running=1))
    async with states.followed({}):
        await until(lambda: len(told.lines) > 1)
        states.recorded(Sampled(3.0, "decode-0", running=1))
    assert [line.partition(":")[0] for line in told.lines[:3]] == [
        "decode-0 up",
        "decode-0 not answering",
        "decode-0 up",
    ]


async def test_a_process_that_has_ended_is_named_with_its_code_also_one_that_is_no_server() -> None:
    told = Told()
    states = told.states(NOWHERE)
    states.recorded(Sampled(1.0, "decode-0"))
    told.ended = {"decode-0": 137, "proxy": 1}
    states.look_at_processes()
    states.look_at_processes()
    # Its metrics cannot be read, which is no news.
    states.recorded(Sampled(2.0, "decode-0", cause="Connection refused"))
    # Both were started again; only the server can be asked whether it answers.
    told.ended = {}
    states.look_at_processes()
    states.recorded(Sampled(3.0, "decode-0"))
    assert told.lines == [
        "decode-0 up",
        "decode-0 ended with code 137",
        "proxy ended with code 1",
        "proxy up",
        "decode-0 up",
    ]


async def test_a_cause_in_other_words_is_no_change() -> None:
    told = Told()
    states = told.states(NOWHERE)
    for cause in ("Connection refused", "Connection reset", "Connection refused"):
        states.recorded(Sampled(1.0, "decode-0", cause=cause))
    assert told.lines == ["decode-0 not answering: Connection refused"]


async def test_a_server_whose_metrics_are_read_is_not_asked_as_well() -> None:
    told, asked, clock = Told(), list[str](), HandClock()
    async with answering(200, asked) as server:
        states = ServerStates([server], clock, told)
        states.recorded(Sampled(0.0, "decode-0"))
        async with states.followed({}):
            for _ in range(5):
                await clock.advance(1.0)
                states.recorded(Sampled(0.0, "decode-0"))
            assert asked == []
            # No more readings.
            await clock.advance(3.0)
            await until(lambda: bool(asked))


@pytest.mark.parametrize(("late", "lines"), [(0.1, ["decode-0 not answering: not within 5 s"]), (3.0, [])])
async def test_a_time_out_counts_unless_this_process_was_busy_itself(
    monkeypatch: pytest.MonkeyPatch, late: float, lines: list[str]
) -> None:
    told, clock, asked = Told(), JumpingClock(), list[str]()

    async def get_text(_session: object, url: str, seconds: float) -> tuple[int, str]:
        asked.append(url)
        clock.time += seconds + late
        raise TimeoutError

    monkeypatch.setattr(module, "get_text", get_text)
    async with told.states(NOWHERE, clock=clock).followed({}):
        await until(lambda: len(asked) > 2)
    assert told.lines == lines
