"""What a warm-up meets: who can put it right, what the server said, and how soon it is told."""

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
from handover import HANDED, PATIENT
from jumping_clock import JumpingClock

from harness.cli.options import parse
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.deploy.warmup import REFUSALS_LAST, WarmUp, warm_up_load, warm_up_transfers
from harness.errors import DeployError, HarnessError, UsageError
from harness.preflight.words import shown_url, words

Answer = Callable[[dict[str, Any]], web.Response]
COMPLETION: dict[str, Any] = {"choices": [{"text": "a", "finish_reason": "length"}]}


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Answers each completion as told by its body."""

    async def handle(request: web.Request) -> web.Response:
        return answer(await request.json())

    app = web.Application()
    app.router.add_post("/v1/completions", handle)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


def says(status: int, body: Any = "", **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda _: web.Response(status=status, text=text, headers=headers)


def how(clock: JumpingClock, *, launched: bool = False, **headers: str) -> WarmUp:
    return WarmUp("canary", headers, clock, timeout=PATIENT, launched=launched)


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


hands_over = says(200, {"kv_transfer_params": HANDED})


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, UsageError, "does not take a field"),
        (401, UsageError, "--header"),
        (403, UsageError, "--header"),
        (404, UsageError, "--served-model-name"),
        (422, UsageError, "does not take a field"),
        (429, UsageError, "--num-warmups"),
        (500, DeployError, "its log"),
        (502, DeployError, "its log"),
        (503, DeployError, "Try again"),
    ],
)
async def test_a_gateway_that_refuses_is_quoted_and_told_with_what_to_do(
    status: int, kind: type[HarnessError], advice: str
) -> None:
    error = await loaded(says(status, {"error": {"message": "the gateway's own words"}}))
    assert type(error) is kind
    assert f"answered {status}: the gateway's own words" in str(error)
    assert advice in str(error)


async def test_a_gateway_that_is_not_there_is_the_users_to_put_right() -> None:
    error = await failure_of(warm_up_load(f"http://127.0.0.1:{unused_port()}", 3, how(JumpingClock())))
    assert type(error) is UsageError
    assert "--base-url" in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://"])
async def test_an_address_that_cannot_be_one_is_the_users_to_put_right(url: str) -> None:
    assert type(await failure_of(warm_up_load(url, 1, how(JumpingClock())))) is UsageError


async def test_a_header_that_is_too_long_to_read_is_no_verdict() -> None:
    error = await loaded(says(200, COMPLETION, **{"x-debug": "z" * 70_000}))
    assert type(error) is DeployError
    assert "65536" in str(error)


async def test_a_header_that_the_load_would_take_the_warm_up_takes_too() -> None:
    """Gateways add headers of several kB."""
    async with server(says(200, COMPLETION, **{"x-debug": "z" * 9000})) as url:
        assert len(await warm_up_load(url, 3, how(JumpingClock()))) == 3


@pytest.mark.parametrize("now_and_then", [says(502), says(429), says(503, "busy"), says(200, {"error": "no upstream"})])
async def test_what_fails_now_and_then_is_the_verdicts_to_find(now_and_then: Answer) -> None:
    """A request of the first load that fails once or twice in a row ends nothing."""
    asked = 0

    def flaky(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return now_and_then(body) if asked in (2, 3) else says(200, COMPLETION)(body)

    async with server(flaky) as url:
        assert len(await warm_up_load(url, 2, how(JumpingClock()))) == 2
    assert asked == 4


@pytest.mark.parametrize("refusal", [says(502), says(429), says(503, "busy")])
async def test_what_refuses_the_very_first_request_is_told_at_once(refusal: Answer) -> None:
    asked = 0

    def not_yet(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return refusal(body) if asked == 1 else says(200, COMPLETION)(body)

    async with server(not_yet) as url:
        error = await failure_of(warm_up_load(url, 8, how(JumpingClock())))
    assert isinstance(error, HarnessError)
    assert asked == 1


async def test_a_gateway_that_never_answers_is_given_up_when_the_user_said() -> None:
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
    assert "no answer within 0.05 s" in str(error)
    assert asked == 1


async def test_a_redirect_is_told_and_not_followed() -> None:
    error = await loaded(says(307, "", Location="http://elsewhere:8000/v1/completions"))
    assert type(error) is UsageError
    assert "http://elsewhere:8000" in str(error)


async def test_a_web_page_in_place_of_a_completion_is_another_address() -> None:
    error = await loaded(says(200, "<html>Welcome</html>"))
    assert type(error) is UsageError
    assert "Welcome" in str(error)


async def test_an_error_inside_a_200_is_quoted() -> None:
    error = await loaded(says(200, {"error": {"message": "no healthy upstream"}}))
    assert type(error) is DeployError
    assert "no healthy upstream" in str(error)


async def test_no_credential_is_in_a_message() -> None:
    error = await loaded(
        says(401, "bad key sesame-opens; see http://me:hidden@proxy/help"), Authorization="Bearer sesame-opens"
    )
    assert "sesame" not in str(error)
    assert "hidden" not in str(error)
    assert shown_url("http://me:hidden@proxy:1/v1?key=hidden") == "http://proxy:1/v1"
    assert words("sesame", {"X-Tenant": "a"}) == "sesame"


async def test_a_wrong_name_ends_the_warm_up_at_once() -> None:
    clock = JumpingClock()
    error = await transferred(clock, says(404, {"error": {"message": "The model `x` does not exist."}}), says(200))
    assert type(error) is UsageError
    assert "The model `x` does not exist" in str(error)
    assert clock.time == 0.0


async def test_prefill_that_hands_nothing_over_has_no_connector() -> None:
    clock = JumpingClock()
    error = await transferred(clock, says(200, COMPLETION), says(200))
    assert type(error) is UsageError
    assert "hands nothing over" in str(error)
    assert "--kv-transfer-config" in str(error)
    assert clock.time < REFUSALS_LAST


def refuses_handovers(body: dict[str, Any]) -> web.Response:
    refuses = "kv_transfer_params" in body
    return web.json_response(
        {"error": "Internal server error"} if refuses else COMPLETION, status=500 if refuses else 200
    )


async def test_servers_that_do_not_fit_each_other_are_the_users_to_put_right() -> None:
    error = await transferred(JumpingClock(), hands_over, refuses_handovers)
    assert type(error) is UsageError
    assert "do not fit each other" in str(error)


async def test_servers_that_the_harness_launched_are_not() -> None:
    error = await transferred(JumpingClock(), hands_over, refuses_handovers, launched=True)
    assert type(error) is DeployError


async def test_a_handshake_that_names_its_reason_is_not_tried_again() -> None:
    clock = JumpingClock()
    mismatch = says(500, {"error": {"message": "NIXL compatibility hash mismatch. Local: a, Remote: b."}})
    error = await transferred(clock, hands_over, mismatch)
    assert "NIXL compatibility hash mismatch" in str(error)
    assert clock.time == 0.0


async def test_no_warm_up_load_is_sent_where_none_is_wanted(tmp_path: Path) -> None:
    """``--num-warmups 0`` asks the proxy nothing."""
    options = parse(["run", "--engine", "sim", "--num-warmups", "0"])
    around = Surroundings(tmp_path, MonotonicClock())
    async with (
        open_session(options.target, around) as session,
        aiohttp.ClientSession() as http,
        http.get(f"{session.deployment.proxy_url}/proxy/status") as status,
    ):
        assert (await status.json())["requests"] == 0
