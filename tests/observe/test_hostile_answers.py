"""What servers may send costs bounded memory and time, and leads to no other host."""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from jumping_clock import JumpingClock

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server
from harness.history import ScrapeFailed
from harness.observe.answering import all_serve
from harness.observe.bodies import LARGEST, why
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import parse
from harness.observe.scrape import Occasion, scrape
from harness.observe.server_info import learn
from harness.observe.vocabulary import tokens_that_are_safe
from harness.preflight import has_our_proxy

_PIECE = b"# a comment of an exposition that never ends\n" * 10_000
_SECRET = {"X-Api-Key": "opensesame-1234"}


class Endless:
    """A server that answers every request for ever; counts what was taken."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.taken = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self.kind})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(_PIECE)
                self.taken += len(_PIECE)
        return response


@asynccontextmanager
async def serving(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def read(session: ClientSession, url: str) -> object:
    return await scrape(session, Server("decode-0", Role.DECODE, url), JumpingClock(), Occasion("c", "p", "after"))


async def test_a_reading_that_never_ends_is_given_up_after_a_few_megabytes() -> None:
    endless = Endless("text/plain")
    async with serving(endless.answer) as url, ClientSession() as session:
        got = await read(session, url)
    assert isinstance(got, ScrapeFailed)
    assert f"longer than {LARGEST:,} bytes" in got.cause
    assert endless.taken < 4 * LARGEST


async def test_no_question_about_a_server_reads_without_end() -> None:
    endless = Endless("application/json")
    async with serving(endless.answer) as url, ClientSession() as session:
        with pytest.raises(UsageError, match="longer than"):
            await learn(session, prefill_urls=[], decode_urls=[url], proxy_url=None)
        assert not await all_serve([url], "m", {})
        assert not await has_our_proxy(session, url)
        deployment = Deployment(servers=(Server("decode-0", Role.DECODE, url),), proxy_url=None, model="m")
        assert await tokens_that_are_safe(session, deployment) == {}


async def test_a_compressed_reading_counts_by_its_decoded_size() -> None:
    packed = gzip.compress(b" " * (LARGEST + 1))

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as url, ClientSession() as session:
        got = await read(session, url)
    assert isinstance(got, ScrapeFailed)
    assert "longer than" in got.cause


async def test_redirects_lead_to_no_other_host() -> None:
    asked: list[str] = []

    async def other(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text="")

    async with serving(other) as elsewhere:

        async def redirects(_: web.Request) -> web.Response:
            location = elsewhere.replace("//", "//user:opensesame@") + "/x?token=opensesame"
            return web.Response(status=307, headers={"Location": location})

        async with serving(redirects) as url, ClientSession(headers=_SECRET) as session:
            got = await read(session, url)
            with pytest.raises(UsageError, match="redirects") as refused:
                await learn(session, prefill_urls=[], decode_urls=[url], proxy_url=None)
            assert not await all_serve([url], "m", _SECRET)
            assert not await has_our_proxy(session, url)
    assert isinstance(got, ScrapeFailed)
    assert "redirects are not followed" in got.cause
    assert "opensesame" not in got.cause + str(refused.value)
    assert asked == []


def test_more_samples_than_any_server_has_are_no_exposition() -> None:
    lines = "".join(f'vllm:prompt_tokens_total{{engine="{number}"}} 1\n' for number in range(50_001))
    with pytest.raises(ValueError, match="more than any server has"):
        parse(lines, SAMPLE_NAMES)


def test_an_error_that_quotes_a_server_is_one_short_line() -> None:
    shown = why(ValueError("bad status line:\n\x1b[31m\x00" + "x" * 100_000))
    assert shown.isprintable()
    assert len(shown) < 1000
    assert why(TimeoutError()) == "TimeoutError"
