"""The preflight on simulated pairs over HTTP: its findings for misconfigured deployments."""

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
from simulated import simulated

from harness.cli.doctor import doctor
from harness.cli.options import Options, parse
from harness.cli.run import run
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import ExitCode, UsageError
from harness.facts import Connector
from harness.preflight import Item, Level, traffic
from harness.proxy import start_proxy
from harness.sim.deployment import SimDeployment

Change = Callable[[web.Request, Any], Any]


@pytest.fixture(autouse=True)
def _short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three readings suffice to notice the requests that a test makes as another client."""
    monkeypatch.setattr(traffic, "WATCH_SECONDS", 0.2)


@pytest.fixture
async def sim() -> AsyncIterator[SimDeployment]:
    async with simulated() as deployment:
        yield deployment


@asynccontextmanager
async def own_proxy(sim: SimDeployment) -> AsyncIterator[str]:
    """The URL of the harness's own proxy before all servers."""
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
    try:
        yield proxy.url
    finally:
        await proxy.stop()


@asynccontextmanager
async def front(url: str, change: Change = lambda _request, answer: answer) -> AsyncIterator[str]:
    """A gateway to one server; ``change`` may change an answer (JSON parsed, others as bytes), or return a status."""

    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        async with http.request(request.method, url + request.raw_path, data=raw or None) as up:
            body, kind = await up.read(), up.content_type
            answer = json.loads(body) if kind == "application/json" else None
            changed = change(request, body if answer is None else answer)
            if isinstance(changed, int):
                return web.json_response({"error": {"message": "changed"}}, status=changed)
            body = json.dumps(changed).encode() if answer is not None else changed
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
    """The message of the usage error with which opening the deployment ends."""
    with pytest.raises(UsageError) as failed:
        async with opened(tmp_path, p, d, *more):
            pass
    return str(failed.value)


@pytest.mark.slow
async def test_a_correct_deployment_passes_every_check(sim: SimDeployment, tmp_path: Path) -> None:
    async with opened(tmp_path, sim.prefill_urls[0], sim.decode_urls[0]) as (session, items):
        assert {item.level for item in items} == {Level.OK}
        assert session.deployment.own_proxy is True


@pytest.mark.slow
async def test_one_server_in_two_spellings_is_one(sim: SimDeployment, tmp_path: Path) -> None:
    url = sim.prefill_urls[0]
    assert "same server" in await refused(tmp_path, url, url.replace("127.0.0.1", "localhost"))


@pytest.mark.slow
async def test_one_server_behind_two_addresses_is_one(sim: SimDeployment, tmp_path: Path) -> None:
    url = sim.prefill_urls[0]
    async with front(url) as alias:
        assert "same server" in await refused(tmp_path, url, alias)


async def test_a_model_name_that_is_not_served_is_reported_with_the_served_names(
    sim: SimDeployment, tmp_path: Path
) -> None:
    message = await refused(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], "--served-model-name", "simm")
    assert "does not serve the model 'simm'; it serves 'sim'" in message


@pytest.mark.parametrize("reports", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_server_without_a_connector_stops_a_run(role: str, tmp_path: Path, *, reports: bool) -> None:
    """Whether or not the server reports its configuration."""

    def change(request: web.Request, answer: Any) -> Any:
        return 404 if request.path == "/server_info" and not reports else answer

    async with simulated(connectors=()) as plain, simulated(connectors=(Connector.NIXL,)) as whole:
        p, d = (plain, whole) if role == "prefill" else (whole, plain)
        async with front(p.prefill_urls[0], change) as prefill, front(d.decode_urls[0], change) as decode:
            message = await refused(tmp_path, prefill, decode)
    assert "connector" in message
    assert (prefill if role == "prefill" else decode) in message


def hide_connectors(request: web.Request, answer: Any) -> Any:
    """The server reports neither its configuration nor metrics of connectors."""
    if request.path == "/server_info":
        return 404
    if request.path == "/metrics":
        return b"\n".join(line for line in answer.split(b"\n") if b"nixl" not in line and b"offload" not in line)
    return answer


async def test_unreported_connectors_are_checked_by_the_counters_behind_any_proxy(
    sim: SimDeployment, tmp_path: Path
) -> None:
    """The proxy is not the harness's own, and may have its own handover format."""
    async with (
        front(sim.prefill_urls[0], hide_connectors) as p,
        front(sim.decode_urls[0], hide_connectors) as d,
        foreign_proxy([p], [d]) as url,
        opened(tmp_path, p, d, "--base-url", url) as (_, items),
    ):
        assert not [item for item in items if item.level is Level.STOPS]
        assert [item.check for item in items if item.level is Level.OK][-2:] == ["proxy", "transfer"]


async def test_decode_without_a_connector_behind_any_proxy_stops_a_run(sim: SimDeployment, tmp_path: Path) -> None:
    async with (
        simulated(connectors=()) as plain,
        front(sim.prefill_urls[0], hide_connectors) as p,
        front(plain.decode_urls[0], hide_connectors) as d,
        foreign_proxy([p], [d]) as url,
    ):
        assert "has no connector" in await refused(tmp_path, p, d, "--base-url", url)


@pytest.mark.slow
async def test_a_decode_server_with_another_dtype_stops_a_run(sim: SimDeployment, tmp_path: Path) -> None:
    def change(request: web.Request, answer: Any) -> Any:
        if request.path == "/server_info":
            answer["vllm_config"]["model_config"]["dtype"] = "torch.float32"
        return answer

    async with front(sim.decode_urls[0], change) as decode:
        assert "differ in dtype" in await refused(tmp_path, sim.prefill_urls[0], decode)


async def test_swapped_urls_behind_a_proxy_stop_a_run(sim: SimDeployment, tmp_path: Path) -> None:
    async with own_proxy(sim) as url:
        message = await refused(tmp_path, sim.decode_urls[0], sim.prefill_urls[0], "--base-url", url)
    assert "Swap --prefill-url and --decode-url" in message


@pytest.mark.slow
async def test_a_proxy_that_also_asks_other_servers_stops_a_run(tmp_path: Path) -> None:
    async with simulated(decodes=2) as sim, own_proxy(sim) as url:
        message = await refused(tmp_path, sim.prefill_urls[0], sim.decode_urls[0], "--base-url", url)
    assert "4 of 8 requests never arrived at a listed one" in message


@pytest.mark.slow
async def test_the_harnesss_own_proxy_is_recognised_when_given(sim: SimDeployment, tmp_path: Path) -> None:
    p, d = sim.prefill_urls[0], sim.decode_urls[0]

    def change(request: web.Request, answer: Any) -> Any:
        return 404 if request.path == "/proxy/status" else answer

    async with own_proxy(sim) as url:
        async with opened(tmp_path, p, d, "--base-url", url) as (session, _):
            assert session.deployment.own_proxy is True
        async with front(url, change) as foreign, opened(tmp_path, p, d, "--base-url", foreign) as (session, _):
            assert session.deployment.own_proxy is False


async def test_requests_of_other_clients_are_noticed(sim: SimDeployment, tmp_path: Path) -> None:
    p, d = sim.prefill_urls[0], sim.decode_urls[0]
    asked = 0

    def change(request: web.Request, answer: Any) -> Any:
        nonlocal asked
        asked += request.path == "/metrics"
        if request.path == "/metrics" and asked > 2:
            sim.pair.decode.engine.stats.prompt_tokens += 3
        return answer

    async with front(d, change) as decode, opened(tmp_path, p, decode) as (_, items):
        assert any(item.check == "traffic" and "Another client uses decode-0" in item.seen for item in items)


@pytest.mark.slow
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
async def test_a_line_that_the_servers_cannot_serve_is_a_usage_error(
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


@pytest.mark.slow
async def test_doctor_ends_as_unknown_if_a_verdict_would(
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
    assert "Check that the server is up" in capsys.readouterr().out


async def test_the_first_request_to_a_given_proxy_is_a_completion(sim: SimDeployment, tmp_path: Path) -> None:
    """A gateway's refusal of a completion is more informative than that of another path."""
    asked: list[str] = []

    def change(request: web.Request, answer: Any) -> Any:
        asked.append(request.path)
        return 401 if len(asked) == 1 else answer

    p, d = sim.prefill_urls[0], sim.decode_urls[0]
    async with foreign_proxy([p], [d]) as url, front(url, change) as gateway:
        message = await refused(tmp_path, p, d, "--base-url", gateway)
    assert asked[0] == "/v1/completions"
    assert "answered 401: changed" in message
