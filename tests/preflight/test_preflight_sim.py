"""A preflight on simulated pairs over HTTP: what is said of deployments that are put together wrongly."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from foreign_proxy import foreign_proxy
from model_configs import SIMULATED

from harness.cli.doctor import doctor
from harness.cli.options import Options, parse
from harness.cli.run import run
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import ExitCode, UsageError
from harness.facts import Connector
from harness.preflight import Item, Level
from harness.proxy import start_proxy
from harness.sim import QUIET, SimConfig, start_sim
from harness.sim.deployment import SimDeployment

Bend = Callable[[web.Request, Any], Any]


@pytest.fixture
async def sim() -> AsyncIterator[SimDeployment]:
    deployment = await start_sim(SimConfig(noise=QUIET))
    yield deployment
    await deployment.stop()


@pytest.fixture
async def sim_with_two() -> AsyncIterator[SimDeployment]:
    deployment = await start_sim(SimConfig(noise=QUIET, decodes=2))
    yield deployment
    await deployment.stop()


@asynccontextmanager
async def front(url: str, bend: Bend = lambda _request, answer: answer) -> AsyncIterator[str]:
    """A gateway to one server; ``bend`` may change an answer (JSON parsed, others as bytes), or give a status."""

    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        async with http.request(request.method, url + request.raw_path, data=raw or None) as up:
            body, kind = await up.read(), up.content_type
            answer = json.loads(body) if kind == "application/json" else None
            bent = bend(request, body if answer is None else answer)
            if isinstance(bent, int):
                return web.json_response({"error": {"message": "bent"}}, status=bent)
            body = json.dumps(bent).encode() if answer is not None else bent
            return web.Response(body=body, status=up.status, content_type=kind)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with aiohttp.ClientSession() as http, TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


def options_of(tmp_path: Path, p: str, d: str, *more: str, command: str = "run") -> Options:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(SIMULATED))
    words = ("--prefill-url", p, "--decode-url", d, "--model", str(model), "--plain")
    return parse([command, *words, "--result-dir", str(tmp_path / "runs"), *more])


@asynccontextmanager
async def opened(tmp_path: Path, p: str, d: str, *more: str) -> AsyncIterator[tuple[Session, list[Item]]]:
    items: list[Item] = []
    around = Surroundings(tmp_path, MonotonicClock(), on_checked=items.extend)
    async with open_session(options_of(tmp_path, p, d, *more).target, around) as session:
        yield session, items


async def refused(tmp_path: Path, p: str, d: str, *more: str) -> str:
    """The words of the usage error that opening ends in."""
    with pytest.raises(UsageError) as failed:
        async with opened(tmp_path, p, d, *more):
            pass
    return str(failed.value)


async def test_a_right_deployment_passes_every_check(sim: SimDeployment, tmp_path: Path) -> None:
    async with opened(tmp_path, sim.prefill_urls[0], sim.decode_urls[0]) as (session, items):
        assert {item.level for item in items} == {Level.OK}
        assert session.deployment.own_proxy is True


async def test_one_server_in_two_spellings_is_one(sim: SimDeployment, tmp_path: Path) -> None:
    url = sim.prefill_urls[0]
    assert "same server" in await refused(tmp_path, url, url.replace("127.0.0.1", "localhost"))


async def test_one_server_behind_two_addresses_is_one(sim: SimDeployment, tmp_path: Path) -> None:
    url = sim.prefill_urls[0]
    async with front(url) as alias:
        assert "same server" in await refused(tmp_path, url, alias)


async def test_a_name_that_nobody_serves_is_told_with_those_that_are(sim: SimDeployment, tmp_path: Path) -> None:
    said = await refused(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], "--served-model-name", "simm")
    assert "does not serve the model 'simm'; it serves 'sim'" in said


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_server_without_a_connector_is_told(role: str, tmp_path: Path, *, tells: bool) -> None:
    """Whether or not it shows its configuration."""
    plain = await start_sim(SimConfig(noise=QUIET, connectors=()))
    whole = await start_sim(SimConfig(noise=QUIET, connectors=(Connector.NIXL,)))

    def bend(request: web.Request, answer: Any) -> Any:
        return 404 if request.path == "/server_info" and not tells else answer

    try:
        p, d = (plain, whole) if role == "prefill" else (whole, plain)
        async with front(p.prefill_urls[0], bend) as prefill, front(d.decode_urls[0], bend) as decode:
            said = await refused(tmp_path, prefill, decode)
    finally:
        await plain.stop()
        await whole.stop()
    assert "connector" in said
    assert (prefill if role == "prefill" else decode) in said


def tells_nothing_of_connectors(request: web.Request, answer: Any) -> Any:
    """Neither its configuration nor a connector's metrics."""
    if request.path == "/server_info":
        return 404
    if request.path == "/metrics":
        return b"\n".join(line for line in answer.split(b"\n") if b"nixl" not in line and b"offload" not in line)
    return answer


async def test_a_connector_that_nothing_tells_of_is_judged_by_what_arrives(sim: SimDeployment, tmp_path: Path) -> None:
    """Behind a proxy of somebody else's, which may hand over in its own way."""
    async with (
        front(sim.prefill_urls[0], tells_nothing_of_connectors) as p,
        front(sim.decode_urls[0], tells_nothing_of_connectors) as d,
        foreign_proxy([p], [d]) as url,
        opened(tmp_path, p, d, "--base-url", url) as (_, items),
    ):
        assert not [item for item in items if item.level is Level.STOPS]
        assert [item.check for item in items if item.level is Level.OK][-2:] == ["proxy", "transfer"]


async def test_decode_without_a_connector_behind_any_proxy_is_told(sim: SimDeployment, tmp_path: Path) -> None:
    plain = await start_sim(SimConfig(noise=QUIET, connectors=()))
    try:
        async with (
            front(sim.prefill_urls[0], tells_nothing_of_connectors) as p,
            front(plain.decode_urls[0], tells_nothing_of_connectors) as d,
            foreign_proxy([p], [d]) as url,
        ):
            said = await refused(tmp_path, p, d, "--base-url", url)
    finally:
        await plain.stop()
    assert "it has no connector" in said


async def test_a_decode_server_of_another_type_is_told(sim: SimDeployment, tmp_path: Path) -> None:
    def bend(request: web.Request, answer: Any) -> Any:
        if request.path == "/server_info":
            answer["vllm_config"]["model_config"]["dtype"] = "torch.float32"
        return answer

    async with front(sim.decode_urls[0], bend) as decode:
        assert "differ in dtype" in await refused(tmp_path, sim.prefill_urls[0], decode)


async def test_urls_that_are_swapped_behind_a_proxy_are_told(sim: SimDeployment, tmp_path: Path) -> None:
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
    try:
        said = await refused(tmp_path, sim.decode_urls[0], sim.prefill_urls[0], "--base-url", proxy.url)
    finally:
        await proxy.stop()
    assert "Swap --prefill-url and --decode-url" in said


async def test_a_proxy_that_also_asks_others_is_told(sim_with_two: SimDeployment, tmp_path: Path) -> None:
    sim = sim_with_two
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
    try:
        said = await refused(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], "--base-url", proxy.url)
    finally:
        await proxy.stop()
    assert "4 of 8 requests never came to a listed one" in said


async def test_a_given_proxy_of_the_harness_is_known_as_such(sim: SimDeployment, tmp_path: Path) -> None:
    p, d = sim.prefill_urls[0], sim.decode_urls[0]
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)

    def bend(request: web.Request, answer: Any) -> Any:
        return 404 if request.path == "/proxy/status" else answer

    try:
        async with opened(tmp_path, p, d, "--base-url", proxy.url) as (session, _):
            assert session.deployment.own_proxy is True
        async with front(proxy.url, bend) as foreign, opened(tmp_path, p, d, "--base-url", foreign) as (session, _):
            assert session.deployment.own_proxy is False
    finally:
        await proxy.stop()


async def test_other_peoples_requests_are_seen(sim: SimDeployment, tmp_path: Path) -> None:
    p, d = sim.prefill_urls[0], sim.decode_urls[0]
    asked = 0

    def bend(request: web.Request, answer: Any) -> Any:
        nonlocal asked
        asked += request.path == "/metrics"
        if request.path == "/metrics" and asked > 2:
            sim.pair.decode.engine.stats.prompt_tokens += 3
        return answer

    async with front(d, bend) as decode, opened(tmp_path, p, decode) as (_, items):
        assert any(item.check == "traffic" and "decode-0 is asked by somebody else" in item.seen for item in items)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"prompt": [20, 30], "output_tokens": 3}\n\n{"prompt": [20, 4096], "output_tokens": 3}\n',
            "line 3 has the token",
        ),
        ('{"prompt": [20, 30], "output_tokens": 8191}\n', "line 1 asks for a prompt of 2 tokens"),
    ],
)
async def test_a_line_that_no_server_can_take_is_usage(
    sim: SimDeployment, tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "load.jsonl"
    file.write_text(content)
    options = options_of(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], "--dataset-path", str(file))
    with pytest.raises(UsageError) as failed:
        await run(options)
    assert words in str(failed.value)
    assert not sim.pair.prefill.engine.stats.prompt_tokens


async def test_doctor_shows_every_check(sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await doctor(options_of(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], command="doctor"))
    shown = capsys.readouterr().out
    assert code is ExitCode.VALID
    for check in ("servers", "model", "connectors", "KV cache", "load", "defaults", "probes", "traffic", "transfer"):
        assert f"ok      {check}" in shown
    assert shown.endswith("ready\n")


async def test_doctor_shows_what_stops_a_run_and_the_remedy(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = sim.prefill_urls[0]
    code = await doctor(options_of(tmp_path, url, url, "--random-input-len", "9000", command="doctor"))
    shown = capsys.readouterr().out
    assert code is ExitCode.USAGE
    assert "STOPS   servers" in shown
    assert "-> Give each server once" in shown
    assert "STOPS   load" in shown


async def test_doctor_ends_as_unknown_where_a_verdict_would(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], command="doctor")
    config = SIMULATED | {"num_hidden_layers": 6}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert await doctor(options) is ExitCode.UNKNOWN
    assert "0.6667 times" in capsys.readouterr().out


async def test_doctor_shows_a_server_that_does_not_answer(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await sim.stop()
    code = await doctor(options_of(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], command="doctor"))
    assert code is ExitCode.USAGE
    assert "Check that it is up" in capsys.readouterr().out


async def test_the_first_that_a_given_proxy_is_asked_is_a_completion(sim: SimDeployment, tmp_path: Path) -> None:
    """What a gateway says to that is told; what it says of its own pages is not worth losing it for."""
    asked: list[str] = []

    def bend(request: web.Request, answer: Any) -> Any:
        asked.append(request.path)
        return 401 if len(asked) == 1 else answer

    p, d = sim.prefill_urls[0], sim.decode_urls[0]
    async with foreign_proxy([p], [d]) as url, front(url, bend) as gateway:
        said = await refused(tmp_path, p, d, "--base-url", gateway)
    assert asked[0] == "/v1/completions"
    assert "answered 401: bent" in said
