"""The simulated servers on real sockets: answers have the form of vLLM's."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from polling import until
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from simulated import simulated
from turns import turn

from harness.facts import Role
from harness.sim import PlantedBug, SimDeployment
from harness.sim.transit import prefill_body

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT = list(range(300, 350))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def sim() -> AsyncIterator[SimDeployment]:
    async with simulated(eos_rate=0.0) as deployment:
        yield deployment


async def post(session: aiohttp.ClientSession, url: str, body: dict, name: str = "x") -> tuple[int, dict]:
    async with session.post(url, json=body, headers={"X-Request-Id": name}) as response:
        return response.status, await response.json()


async def events(session: aiohttp.ClientSession, url: str, body: dict, name: str = "x") -> list[object]:
    async with session.post(url, json=body, headers={"X-Request-Id": name}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        raw = (await response.read()).decode()
    lines = [line.removeprefix("data: ") for line in raw.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def hand_over(
    session: aiohttp.ClientSession, sim: SimDeployment, body: dict, path: str = COMPLETIONS, name: str = "x"
) -> dict:
    _, answer = await post(session, sim.prefill_urls[0] + path, prefill_body(body), name)
    return body | {"kv_transfer_params": answer["kv_transfer_params"]}


async def test_a_streamed_answer_equals_the_whole_answer(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    body = {"prompt": PROMPT, "max_tokens": 5, "return_token_ids": True, "logprobs": 2}
    url = sim.decode_urls[0] + COMPLETIONS
    _, whole = await post(session, url, await hand_over(session, sim, body))
    streamed = await hand_over(session, sim, body)
    *chunks, usage, done = await events(
        session, url, streamed | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"] == {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert len(choices) == 5
    assert choices[0]["prompt_token_ids"] == PROMPT
    assert [token for choice in choices for token in choice["token_ids"]] == whole["choices"][0]["token_ids"]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["length"]
    logprobs = [value for choice in choices for value in choice["logprobs"]["token_logprobs"]]
    assert logprobs == whole["choices"][0]["logprobs"]["token_logprobs"]
    assert all(len(top) == 2 for top in whole["choices"][0]["logprobs"]["top_logprobs"])


async def test_chat_streamed_and_whole(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    body = {"messages": [{"role": "user", "content": "héllo 你好"}], "max_tokens": 4, "return_token_ids": True}
    body |= {"logprobs": True, "top_logprobs": 2}
    url = sim.decode_urls[0] + CHAT
    _, whole = await post(session, url, await hand_over(session, sim, body, CHAT))
    assert whole["object"] == "chat.completion"
    content = whole["choices"][0]["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in content] == [2] * 4
    *chunks, done = await events(session, url, await hand_over(session, sim, body, CHAT) | {"stream": True})
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]


async def test_prompt_logprobs_have_vllms_shape(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    body = {"prompt": PROMPT[:4], "max_tokens": 1}
    url = sim.decode_urls[0] + COMPLETIONS
    _, own = await post(session, url, body | {"prompt_logprobs": 0})
    _, best = await post(session, url, body | {"prompt_logprobs": 1})
    first, *entries = own["choices"][0]["prompt_logprobs"]
    assert first is None
    assert [list(entry) for entry in entries] == [[str(token)] for token in PROMPT[1:4]]
    for token, entry in zip(PROMPT[1:4], best["choices"][0]["prompt_logprobs"][1:], strict=True):
        assert entry[str(token)].keys() == {"logprob", "rank", "decoded_token"}
        assert 1 in {value["rank"] for value in entry.values()}


async def test_echo_with_logprobs_scores_the_prompt(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    body = {"prompt": PROMPT[:4], "max_tokens": 1, "echo": True, "logprobs": 1}
    _, answer = await post(session, sim.decode_urls[0] + COMPLETIONS, body)
    choice = answer["choices"][0]
    assert choice["text"].startswith(" w300 w301 w302 w303 w")
    assert len(choice["logprobs"]["token_logprobs"]) == 5
    assert choice["logprobs"]["token_logprobs"][0] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": [99999]}, 400),
        ({"prompt": PROMPT, "max_tokens": 10**6}, 400),
        ({"prompt": PROMPT, "max_tokens": 2, "min_tokens": 3}, 400),
        ({"prompt": PROMPT, "stream_options": {"include_usage": True}}, 400),
        ({"prompt": PROMPT, "stream": True, "prompt_logprobs": 1}, 400),
        ({"prompt": PROMPT, "model": "other"}, 404),
    ],
)
async def test_bad_requests_are_refused_with_an_error_object(
    session: aiohttp.ClientSession, sim: SimDeployment, body: dict, status: int
) -> None:
    seen, answer = await post(session, sim.decode_urls[0] + COMPLETIONS, body)
    assert (seen, answer["error"]["code"]) == (status, status)


async def test_the_other_endpoints(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    url = sim.decode_urls[0]
    async with session.get(url + "/health") as response:
        assert response.status == 200
    async with session.get(url + "/version") as response:
        assert await response.json() == {"version": "0.32.0"}
    async with session.get(url + "/v1/models") as response:
        assert (await response.json())["data"][0]["id"] == "sim"
    _, tokenized = await post(session, url + "/tokenize", {"prompt": " w300 w301"})
    assert tokenized["tokens"] == [300, 301]
    async with session.post(url + "/reset_prefix_cache?reset_external=true") as response:
        assert await response.json() == {"success": True}
    async with session.get(url + "/server_info?config_format=json") as response:
        assert "vllm_config" in await response.json()


async def families(session: aiohttp.ClientSession, url: str) -> dict[tuple[str, tuple], float]:
    async with session.get(url + "/metrics") as response:
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metric_families_appear_when_vllms_do(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    names = {name for name, _ in await families(session, sim.decode_urls[0])}
    assert {"vllm:nixl_bytes_transferred_sum", "vllm:kv_offload_total_bytes_total", "vllm:cache_config_info"} <= names
    assert "process_start_time_seconds" in names
    assert not {"vllm:kv_offload_store_bytes_total", "vllm:kv_offload_cpu_cache_usage_perc"} & names
    body = await hand_over(session, sim, {"prompt": PROMPT, "max_tokens": 4})
    assert (await post(session, sim.decode_urls[0] + COMPLETIONS, body))[0] == 200
    for server in sim.pair.servers:
        server.settle()
    names = {name for name, _ in await families(session, sim.decode_urls[0])}
    assert {"vllm:kv_offload_store_bytes_total", "vllm:kv_offload_cpu_cache_usage_perc"} <= names
    assert "vllm:kv_offload_load_bytes_total" not in names


async def test_metrics_are_written_as_prometheus_client_does(session: aiohttp.ClientSession) -> None:
    async with simulated(model='a "model"\\of\nmine', engine_labels=2) as sim:
        body = await hand_over(session, sim, {"prompt": PROMPT, "max_tokens": 5})
        await post(session, sim.decode_urls[0] + COMPLETIONS, body)
        for server in (sim.pair.prefill, sim.pair.decode):
            registry = CollectorRegistry()
            registry.register(server.exposition)
            assert server.metrics() == generate_latest(registry)


async def test_engine_labels_add_up(session: aiohttp.ClientSession) -> None:
    async with simulated(engine_labels=3, metric_prefix="kserve_vllm:") as sim:
        await post(session, sim.decode_urls[0] + COMPLETIONS, {"prompt": PROMPT, "max_tokens": 2})
        seen = await families(session, sim.decode_urls[0])
        parts = [value for (name, _), value in seen.items() if name == "kserve_vllm:prompt_tokens_total"]
        assert len(parts) == 3
        assert sum(parts) == 50


async def test_the_facts_describe_the_servers(sim: SimDeployment) -> None:
    facts = sim.facts("http://proxy")
    assert [server.role for server in facts.servers] == [Role.PREFILL, Role.DECODE]
    assert facts.servers[0].url == sim.prefill_urls[0]
    assert facts.servers[1].block_size == 16
    assert facts.geometry is not None
    assert facts.geometry.block_bytes(16) == sim.config.block_bytes


async def test_a_client_that_goes_away_frees_the_blocks(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    body = {"prompt": PROMPT, "max_tokens": 4000, "stream": True}
    engine = sim.pair.decode.engine
    async with session.post(sim.decode_urls[0] + COMPLETIONS, json=body) as response:
        await response.content.readline()
        assert engine.pool.usage > 0
    await until(lambda: not engine.pool.usage, "the blocks were not freed")
    assert engine.stats.success["length"] == 0


async def test_many_requests_at_once(session: aiohttp.ClientSession, sim: SimDeployment) -> None:
    async def one(index: int) -> int:
        body = {"prompt": [264 + index, *PROMPT], "max_tokens": 6, "stream": True}
        handed = await hand_over(session, sim, body, name=f"r{index}")
        *_, done = await events(session, sim.decode_urls[0] + COMPLETIONS, handed, f"r{index}")
        return int(done == "[DONE]")

    assert sum(await asyncio.gather(*(one(index) for index in range(64)))) == 64
    stats = sim.pair.decode.engine.stats
    assert (stats.local_compute, stats.external_kv_transfer) == (0, 64 * 51)
    assert stats.nixl_bytes.total == 64 * 4 * sim.config.block_bytes
    assert not sim.ledger.wrong


async def streamed_with(session: aiohttp.ClientSession, bug: str) -> list[object]:
    async with simulated(eos_rate=0.0, bugs=(PlantedBug(bug),)) as sim:
        body = await hand_over(session, sim, {"prompt": PROMPT, "max_tokens": 6, "stream": True})
        return await events(session, sim.decode_urls[0] + COMPLETIONS, body)


async def test_bugs_of_the_stream(session: aiohttp.ClientSession) -> None:
    assert (await streamed_with(session, "stream_cut"))[-1] != "[DONE]"
    # All six tokens are in one chunk, which the end marker follows.
    assert len(await streamed_with(session, "burst")) == 2
    error = [event for event in await streamed_with(session, "error_in_200") if "error" in event]
    assert error[0]["error"]["code"] == 500


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_client_left_is_aborted(sim: SimDeployment, session: aiohttp.ClientSession, stream: bool) -> None:
    """As in vLLM, which counts no finished request for it, and frees its blocks."""
    server = next(one for one in sim.pair.servers if one.role is Role.PREFILL)
    body = {"model": "sim", "prompt": PROMPT, "max_tokens": 3000, "ignore_eos": True, "stream": stream}
    asking = asyncio.create_task(post(session, sim.prefill_urls[0] + COMPLETIONS, body))
    await until(lambda: server.engine.scheduler.running)
    asking.cancel()
    await until(lambda: not server.engine.scheduler.running)
    assert server.engine.pool.usage == 0
    assert sum(server.engine.stats.success.values()) == 0


@pytest.mark.parametrize("turns", range(4))
async def test_a_server_that_gets_work_as_it_is_ended_ends(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for work until a lease ends, which is a wait of another kind than one without an end."""
    async with simulated() as deployment:
        site = deployment.sites[0]
        lease_ends = property(lambda _engine: site.clock.now() + 100)
        monkeypatch.setattr(type(site.server.engine), "next_deadline", lease_ends)
        site._work.set()
        for _ in range(5):
            await turn()
        site._work.set()
        for _ in range(turns):
            await turn()
        stopping = asyncio.create_task(site.stop())
        for _ in range(20):
            await turn()
        assert site._stepper is not None
        assert site._stepper.done()
        await stopping
