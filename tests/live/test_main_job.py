"""The main job on real vLLM: what it must say of a sound pair, and of one where nothing is transferred."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from command_line import Ran, Served, run_harness

pytestmark = pytest.mark.live

LAYERS, KV_HEADS, HEAD_SIZE, FLOAT32, BLOCK = 4, 4, 64, 4, 32
BLOCK_BYTES = LAYERS * BLOCK * KV_HEADS * (HEAD_SIZE + HEAD_SIZE) * FLOAT32
"""Of the canary, written down from its description and not read from its configuration."""


LEADS = 16
"""Requests that are handed over as they should be: more than a warm-up sends, and fewer than that and the load."""


@asynccontextmanager
async def passing_by(proxy: str, decode: str, *, after: int) -> AsyncIterator[str]:
    """The URL of a gateway that sends requests to the proxy, and after so many straight to decode."""
    seen = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        seen += request.method == "POST"
        to = decode if seen > after else proxy
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with http.request(request.method, to + request.path_qs, data=body or None, headers=headers) as answered:
            answer = web.StreamResponse(
                status=answered.status, headers={"Content-Type": answered.headers.get("Content-Type", "text/plain")}
            )
            await answer.prepare(request)
            async for part in answered.content.iter_any():
                await answer.write(part)
            await answer.write_eof()
            return answer

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", handle)
    async with aiohttp.ClientSession() as http, TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


@pytest.fixture(scope="module")
def ran(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_harness(
        tmp_path_factory.mktemp("runs"),
        *("--concurrency", "32", "--num-prompts", "128", "--seed", "7"),
        # By default verification ends after 20 s, which do not suffice on a busy machine.
        *("--verify", "all"),
        *served.attach(),
    )


def _prompt_lengths(ran: Ran) -> list[int]:
    """From what was sent, not from what anybody counted."""
    lines = (ran.directory / "history.jsonl").read_text().splitlines()
    sent = [entry for entry in map(json.loads, lines) if entry["kind"] == "sent" and entry["phase"] == "load"]
    return [len(entry["request"]["prompt"]) for entry in sent]


def test_a_sound_pair_is_valid(ran: Ran) -> None:
    assert ran.status == 0, ran.output + ran.errors
    assert ran.result["verdict"] == "valid"
    assert {check["name"]: check["verdict"] for check in ran.result["checks"]}["outputs"] == "valid"
    assert ran.output.startswith("VALID")


def test_decode_took_every_prompt_token_by_transfer(ran: Ran) -> None:
    total = sum(_prompt_lengths(ran))
    assert ran.result["kv_transfer"]["decode"] == {
        "local_compute": 0,
        "local_cache_hit": 0,
        "external_kv_transfer": total,
    }
    assert ran.result["kv_transfer"]["prefill"]["local_compute"] == total


def test_every_block_of_every_prompt_moved_once(ran: Ran) -> None:
    blocks = sum(-(-length // BLOCK) for length in _prompt_lengths(ran))
    assert ran.result["kv_transfer"]["nixl_bytes"]["observed"] == blocks * BLOCK_BYTES
    assert ran.result["kv_transfer"]["nixl_bytes"]["expected"] == blocks * BLOCK_BYTES


def test_whole_blocks_were_offloaded_on_both_servers(ran: Ran) -> None:
    blocks = sum(length // BLOCK for length in _prompt_lengths(ran))
    assert ran.result["kv_transfer"]["offload_bytes"]["store"]["observed"] == 2 * blocks * BLOCK_BYTES


def test_every_output_was_compared(ran: Ran) -> None:
    outputs = ran.result["outputs"]
    assert (outputs["requests"], outputs["mismatch"], outputs["unverified"]) == (128, 0, 0)
    assert outputs["exact"] + outputs["tie"] == 128


async def test_a_proxy_that_comes_to_pass_prefill_by_is_invalid_though_every_answer_is_right(
    served: Served, tmp_path: Path
) -> None:
    async with passing_by(served.facts["base_url"], served.facts["decode_urls"][0], after=LEADS) as url:
        flags = ("--num-prompts", "16", "--concurrency", "8", "--seed", "8", *served.attach(base_url=url))
        ran = await asyncio.to_thread(run_harness, tmp_path, *flags)
    assert ran.status == 1, ran.output + ran.errors
    assert ran.result["verdict"] == "invalid"
    assert ran.result["outputs"]["mismatch"] == 0
    decode = ran.result["kv_transfer"]["decode"]
    assert decode["external_kv_transfer"] < sum(_prompt_lengths(ran)) == sum(decode.values())
    assert "token_sources" in ran.output


def test_a_decode_server_in_the_proxys_place_is_told_before_anything_is_judged(served: Served, tmp_path: Path) -> None:
    direct = served.attach(base_url=served.facts["decode_urls"][0])
    ran = run_harness(tmp_path, "--num-prompts", "16", *direct)
    assert ran.status == 2, ran.output + ran.errors
    assert "is the address of decode-0, not of a proxy" in ran.errors
