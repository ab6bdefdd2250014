"""Makes a deployment ready to be measured: every prefill server has handed KV to every decode server.

/health says that a server answers; it does not say that a transfer works. The first one makes NIXL's handshake
between two engines (about 5 s on two cores) and may time out, which the decode server answers with a 500. So each
pair is asked directly, prefill then decode, until it works, and only then the proxy.

Prompts carry a cache salt: no later request can hit what they leave in a cache.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from harness.clock import Clock
from harness.errors import DeployError
from harness.proxy.contract import Endpoint, decode_body, prefill_body
from harness.proxy.handover import IncompleteHandover, take_handover

_RETRY = 0.5
REFUSALS_LAST = 60.0
"""Seconds after which servers that answer, and answer nothing but errors, are believed. A handshake that is only slow
times out after 5 s and works at the second or third try."""
_FIRST_TOKEN_ID = 10
"""Above the special tokens of common tokenizers; a warm-up prompt's ids count up from here."""
_PROMPT_TOKENS = 70
"""Two whole blocks and a partial one, at the CPU's block size."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a deployment is asked."""

    model: str
    headers: Mapping[str, str]
    clock: Clock
    timeout: float
    """Seconds for all of it."""


async def warm_up_transfers(prefill: Sequence[str], decode: Sequence[str], how: WarmUp) -> None:
    """Hand one prompt from each prefill server to each decode server, until it works.

    Raises:
        DeployError: a pair still failed at the deadline; carries the last answer.

    """
    deadline = how.clock.now() + how.timeout
    async with aiohttp.ClientSession(headers=how.headers) as session, asyncio.TaskGroup() as group:
        for p in prefill:
            for d in decode:
                group.create_task(_until_transferred(session, p, d, how, deadline))


async def warm_up_load(url: str, requests: int, how: WarmUp) -> list[float]:
    """Send requests at once through a proxy or server; seconds that each took."""
    async with aiohttp.ClientSession(headers=how.headers) as session:
        return await asyncio.gather(*(_timed(session, url, how) for _ in range(requests)))


async def _timed(session: aiohttp.ClientSession, url: str, how: WarmUp) -> float:
    started = how.clock.now()
    await _ask(session, url, json.dumps(_body(how.model)).encode())
    return how.clock.now() - started


async def _until_transferred(
    session: aiohttp.ClientSession, prefill: str, decode: str, how: WarmUp, deadline: float
) -> None:
    started = how.clock.now()
    while True:
        try:
            await _transfer(session, prefill, decode, how.model)
        except (aiohttp.ClientError, TimeoutError, IncompleteHandover, _Refused) as error:
            refused = isinstance(error, _Refused | IncompleteHandover)
            now = how.clock.now()
            if now > deadline or (refused and now - started > REFUSALS_LAST):
                raise DeployError(
                    f"No KV transfer from {prefill} to {decode} within {now - started:.0f} s; the last try ended in: "
                    f"{error}. Look at both servers' logs for NIXL's handshake; are both launched with a connector "
                    "that hands KV over, and can decode reach prefill's side channel port?"
                ) from error
        else:
            return
        await how.clock.sleep(_RETRY)


async def _transfer(session: aiohttp.ClientSession, prefill: str, decode: str, model: str) -> None:
    body = _body(model)
    answer = await _ask(session, prefill, prefill_body(body, Endpoint.COMPLETIONS))
    params = take_handover(answer)
    await _ask(session, decode, decode_body(json.dumps(body).encode(), body, params))


class _Refused(Exception):  # noqa: N818 - reads as what happened
    """The server answered with an error."""


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes) -> bytes:
    headers = {"Content-Type": "application/json", "X-Request-Id": f"warm-up-{uuid.uuid4()}"}
    async with session.post(f"{url}{Endpoint.COMPLETIONS}", data=body, headers=headers) as response:
        raw = await response.read()
        if response.status != HTTPStatus.OK:
            raise _Refused(f"{url} answered {response.status}: {raw[:300].decode(errors='replace')}")
        return raw


def _body(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(range(_FIRST_TOKEN_ID, _FIRST_TOKEN_ID + _PROMPT_TOKENS)),
        "max_tokens": 4,
        "temperature": 0,
        "cache_salt": uuid.uuid4().hex,
    }
