"""Warming a deployment up: when a failure is retried, whose error it is, and what its message says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from jumping_clock import JumpingClock
from proxy_fakes import PARAMS

from harness.cli.options import parse
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.deploy.warmup_load import warm_up_load
from harness.deploy.warmup_request import WarmUp
from harness.deploy.warmup_transfers import REFUSALS_LAST, warm_up_transfers
from harness.errors import DeployError, HarnessError, UsageError
from harness.preflight.quoting import quoted
from harness.redact import redact_url

Answer = Callable[[dict[str, Any]], web.Response]
COMPLETION: dict[str, Any] = {"choices": [{"text": "a", "finish_reason": "length"}]}
TIMEOUT = 600.0
"""Seconds for a whole warm-up."""


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """A server that answers each completion request by its body."""

    async def handle(request: web.Request) -> web.Response:
        return answer(await request.json())

    app = web.Application()
    app.router.add_post("/v1/completions", handle)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


def responding(status: int, body: Any = "", **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda _: web.Response(status=status, text=text, headers=headers)


def how(clock: JumpingClock, *, launched: bool = False, **headers: str) -> WarmUp:
    return WarmUp("canary", headers, clock, timeout=TIMEOUT, launched=launched)


async def failure_of(work: Awaitable[Any]) -> HarnessError:
    with pytest.raises(HarnessError) as failed:
        await work
    assert "\n" not in str(failed.value)
    return failed.value


async def loaded(answer: Answer, **headers: str) -> HarnessError:
    async with server(answer) as url:
        return await failure_of(warm_up_load(url, 3, how(JumpingClock(), **headers)))


async def transferred(clock: JumpingClock, p: Answer, d: Answer, *, launched: bool = False) -> HarnessError:
    async with server(p) as prefill, server(d) as decode:
        return await failure_of(warm_up_transfers([prefill], [decode], how(clock, launched=launched)))


hands_over = responding(200, {"kv_transfer_params": PARAMS})


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, UsageError, "does not accept a field"),
        (401, UsageError, "--header"),
        (403, UsageError, "--header"),
        (404, UsageError, "--served-model-name"),
        (422, UsageError, "does not accept a field"),
        (429, UsageError, "--num-warmups"),
        (500, DeployError, "its log"),
        (502, DeployError, "its log"),
        (503, DeployError, "Try again"),
    ],
)
async def test_a_refusal_of_a_gateway_is_quoted_with_advice(status: int, kind: type[HarnessError], advice: str) -> None:
    error = await loaded(responding(status, {"error": {"message": "the gateway's own words"}}))
    assert type(error) is kind
    assert f"answered {status}: the gateway's own words" in str(error)
    assert advice in str(error)


async def test_an_unreachable_gateway_is_a_usage_error() -> None:
    error = await failure_of(warm_up_load(f"http://127.0.0.1:{unused_port()}", 3, how(JumpingClock())))
    assert type(error) is UsageError
    assert "--base-url" in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://"])
async def test_an_invalid_address_is_a_usage_error(url: str) -> None:
    assert type(await failure_of(warm_up_load(url, 1, how(JumpingClock())))) is UsageError


async def test_a_header_that_is_too_long_to_read_is_a_deploy_error() -> None:
    error = await loaded(responding(200, COMPLETION, **{"x-debug": "z" * 70_000}))
    assert type(error) is DeployError
    assert "65536" in str(error)


async def test_the_warm_up_accepts_headers_as_long_as_the_load_does() -> None:
    """Gateways add headers of several kB."""
    async with server(responding(200, COMPLETION, **{"x-debug": "z" * 9000})) as url:
        assert len(await warm_up_load(url, 3, how(JumpingClock()))) == 3


@pytest.mark.parametrize(
    "failure", [responding(502), responding(429), responding(503, "busy"), responding(200, {"error": "no upstream"})]
)
async def test_an_occasional_failure_is_retried(failure: Answer) -> None:
    asked = 0

    def flaky(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return failure(body) if asked in (2, 3) else responding(200, COMPLETION)(body)

    async with server(flaky) as url:
        assert len(await warm_up_load(url, 2, how(JumpingClock()))) == 2
    assert asked == 4


@pytest.mark.parametrize("refusal", [responding(502), responding(429), responding(503, "busy")])
async def test_a_refusal_of_the_first_request_is_reported_at_once(refusal: Answer) -> None:
    asked = 0

    def not_yet(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return refusal(body) if asked == 1 else responding(200, COMPLETION)(body)

    async with server(not_yet) as url:
        error = await failure_of(warm_up_load(url, 8, how(JumpingClock())))
    assert isinstance(error, HarnessError)
    assert asked == 1


async def test_a_gateway_that_never_answers_is_given_up_after_the_users_time_limit() -> None:
    """The first load waits no longer than --ready-check-timeout-sec, and asks once."""
    asked = 0

    async def never(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/completions", never)
    running = TestServer(app)
    await running.start_server(shutdown_timeout=0)
    patient = WarmUp("canary", {}, JumpingClock(), timeout=0.05)
    error = await failure_of(warm_up_load(str(running.make_url("")).rstrip("/"), 1, patient))
    await running.close()
    assert type(error) is DeployError
    assert "got no answer within 0.05 s" in str(error)
    assert asked == 1


async def test_a_redirect_is_reported_and_not_followed() -> None:
    error = await loaded(responding(307, "", Location="http://elsewhere:8000/v1/completions"))
    assert type(error) is UsageError
    assert "http://elsewhere:8000" in str(error)


async def test_a_web_page_instead_of_a_completion_is_a_usage_error() -> None:
    error = await loaded(responding(200, "<html>Welcome</html>"))
    assert type(error) is UsageError
    assert "Welcome" in str(error)


async def test_an_error_inside_a_200_is_quoted() -> None:
    error = await loaded(responding(200, {"error": {"message": "no healthy upstream"}}))
    assert type(error) is DeployError
    assert "no healthy upstream" in str(error)


async def test_no_credential_is_in_a_message() -> None:
    error = await loaded(
        responding(401, "bad key sesame-opens; see http://me:hidden@proxy/help"), Authorization="Bearer sesame-opens"
    )
    assert "sesame" not in str(error)
    assert "hidden" not in str(error)
    assert redact_url("http://me:hidden@proxy:1/v1?key=hidden") == "http://<redacted>@proxy:1/v1?<redacted>"
    assert quoted("sesame", {"X-Tenant": "a"}) == "sesame"


async def test_a_wrong_model_name_ends_the_warm_up_at_once() -> None:
    clock = JumpingClock()
    error = await transferred(
        clock, responding(404, {"error": {"message": "The model `x` does not exist."}}), responding(200)
    )
    assert type(error) is UsageError
    assert "The model `x` does not exist" in str(error)
    assert clock.time == 0.0


async def test_a_prefill_server_without_handovers_has_no_connector() -> None:
    clock = JumpingClock()
    error = await transferred(clock, responding(200, COMPLETION), responding(200))
    assert type(error) is UsageError
    assert "hands no KV over" in str(error)
    assert "--kv-transfer-config" in str(error)
    assert clock.time < REFUSALS_LAST


def refuses_handovers(body: dict[str, Any]) -> web.Response:
    refuses = "kv_transfer_params" in body
    return web.json_response(
        {"error": "Internal server error"} if refuses else COMPLETION, status=500 if refuses else 200
    )


async def test_incompatible_servers_are_a_usage_error() -> None:
    error = await transferred(JumpingClock(), hands_over, refuses_handovers)
    assert type(error) is UsageError
    assert "are incompatible" in str(error)


async def test_incompatible_servers_that_the_harness_launched_are_a_deploy_error() -> None:
    error = await transferred(JumpingClock(), hands_over, refuses_handovers, launched=True)
    assert type(error) is DeployError


async def test_a_handshake_that_can_never_work_is_not_tried_again() -> None:
    clock = JumpingClock()
    mismatch = responding(500, {"error": {"message": "NIXL compatibility hash mismatch. Local: a, Remote: b."}})
    error = await transferred(clock, hands_over, mismatch)
    assert "NIXL compatibility hash mismatch" in str(error)
    assert clock.time == 0.0


async def test_a_handshake_that_times_out_at_first_is_tried_again() -> None:
    asked = 0

    def slow(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return responding(500, {"error": "handshake"})(body) if asked <= 20 else responding(200)(body)

    async with server(hands_over) as p, server(slow) as d:
        await warm_up_transfers([p], [d], how(JumpingClock()))


async def test_a_decode_server_that_always_refuses_is_given_up_long_before_the_deadline() -> None:
    clock = JumpingClock()
    error = await transferred(clock, hands_over, responding(500, {"error": "hash mismatch"}))
    assert type(error) is DeployError
    assert "answered 500" in str(error)
    assert "hash mismatch" in str(error)
    assert REFUSALS_LAST < clock.time < TIMEOUT / 2


async def test_with_num_warmups_0_no_request_is_sent_to_the_proxy(tmp_path: Path) -> None:
    options = parse(["run", "--engine", "sim", "--num-warmups", "0"])
    around = Surroundings(tmp_path, MonotonicClock())
    async with (
        open_session(options.target, around) as session,
        aiohttp.ClientSession() as http,
        http.get(f"{session.deployment.proxy_url}/proxy/status") as status,
    ):
        assert (await status.json())["requests"] == 0
