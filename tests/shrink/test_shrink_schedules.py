"""A fault that needs the times at which requests were sent, on a simulated pair behind a gateway that has it."""

import asyncio
import json
import re
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from shrink_pairs import Pair, Ran, bash, harness, served

from harness.cli.shrink import _scheduled

PAUSE = 0.7
"""Seconds without a request after which the gateway answers the next one as if it were another one."""


class Gateway:
    """Hands requests on to the pair's proxy. After a pause, it changes the prompt of the next request of the load."""

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        self._last: dict[str, float] = {}
        """When the last request of each run arrived: by its salt."""

    async def hand_on(self, request: web.Request) -> web.StreamResponse:
        content, name = await request.read(), request.headers.get("X-Request-Id", "")
        if re.fullmatch(r"load-\d+", name):
            content = self._perhaps_of_another(json.loads(content))
        own = {"X-Request-Id": name, "Content-Type": "application/json"}
        async with (
            ClientSession() as session,
            session.request(request.method, self._proxy + request.path, data=content, headers=own) as got,
        ):
            kept = {key: got.headers[key] for key in got.headers if key.lower().startswith(("x-pd", "content-type"))}
            answer = web.StreamResponse(status=got.status, headers=kept)
            await answer.prepare(request)
            async for piece in got.content.iter_any():
                await answer.write(piece)
        return answer

    def _perhaps_of_another(self, body: dict[str, object]) -> bytes:
        now, run = time.monotonic(), str(body["cache_salt"])
        prompt = body["prompt"]
        assert isinstance(prompt, list)
        if now - self._last.get(run, now) > PAUSE:
            body["prompt"] = [prompt[0] + 1, *prompt[1:]]
        self._last[run] = now
        return json.dumps(body).encode()


@asynccontextmanager
async def gateway() -> AsyncIterator[Pair]:
    with served() as pair:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", Gateway(pair.proxy).hand_on)
        async with TestServer(app) as server:
            yield Pair(str(server.make_url("")).rstrip("/"), pair.prefill, pair.decode)


async def beside(*arguments: str | Path) -> Ran:
    """The command line, while this process serves."""
    return await asyncio.to_thread(harness, *arguments)


@pytest.mark.slow
async def test_requests_keep_the_times_that_the_fault_needs(tmp_path: Path) -> None:
    load = ("--stages", "20:0.1s,0:1.2s,20:0.1s", "--burstiness", "inf", "--output-len", "4", "--verify", "all")
    async with gateway() as pair:
        ran = await beside("run", *pair.flags, *load, "--input-len", "20:60", "--plain", "--result-dir", tmp_path)
        assert (ran.code, "invalid" in ran.out.lower()) == (1, True), ran.out + ran.err
        assert ran.directory is not None
        limits = ("--tries", "1", "--confirm", "1", "--max-tries", "7")
        found = await beside("shrink", ran.directory, "--plain", "--result-dir", tmp_path, *limits)
        assert found.code == 1, found.out + found.err
        assert "keep their distances in time" in found.out
        first, second = found.left
        assert (first["at"], second["at"] > PAUSE) == (0.0, True)

        words = shlex.split(found.out.split("with the harness:\n")[1].splitlines()[0])[3:]
        again = await beside(*words, "--plain", "--result-dir", tmp_path)
        assert again.code == 1, again.out + again.err
        assert found.directory is not None
        done = await asyncio.to_thread(bash, found.directory / "reproduce.sh")
        assert done.returncode == 1, done.stdout + done.stderr
        assert re.findall(r"request (\d): DIFFERS", done.stdout) == ["1"]


@pytest.mark.slow
async def test_times_that_the_fault_does_not_need_are_not_kept(tmp_path: Path) -> None:
    load = ("--request-rate", "40", "--num-prompts", "8", "--input-len", "20:60", "--output-len", "4")
    with served("full_hit_wrong=0.3") as pair:
        ran = harness("run", *pair.flags, *load, "--verify", "all", "--plain", "--result-dir", tmp_path)
        assert ran.code == 1, ran.out + ran.err
        assert ran.directory is not None
        limits = ("--tries", "2", "--confirm", "1", "--max-tries", "7")
        found = harness("shrink", ran.directory, "--plain", "--result-dir", tmp_path, *limits)
        assert found.code == 1, found.out + found.err
        assert "the original times of sending are not needed" in found.out
        assert not any("at" in line for line in found.left)


def test_fixed_times_are_known_from_the_command_line(tmp_path: Path) -> None:
    timed, plain = tmp_path / "timed.jsonl", tmp_path / "plain.jsonl"
    timed.write_text('{"prompt": "a", "at": 0}\n{"prompt": "b", "at": 0.5}\n')
    plain.write_text('{"prompt": "a"}\n')
    known = {
        (): False,
        ("run", "--concurrency", "8"): False,
        ("--request-rate", "4"): True,
        ("--dataset-name", "trace", "--dataset-path", "any"): True,
        ("--session-turns", "3"): True,
        ("--dataset-path", str(timed)): True,
        ("--dataset-path", str(plain)): False,
        ("--dataset-path", str(tmp_path / "gone")): None,
        ("--of-another-version",): None,
    }
    assert {words: _scheduled(words) for words in known} == known
