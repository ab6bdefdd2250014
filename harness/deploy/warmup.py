"""Makes a deployment ready to be measured: every prefill server has handed KV to every decode server.

/health says that a server answers; it does not say that a transfer works. The first one makes NIXL's handshake
between two engines (about 5 s on two cores) and may time out, which the decode server answers with a 500. So each
pair is asked directly, prefill then decode, until it works, and only then the proxy.

What a failure means:

- An answer with a 4xx will not get better: the model's name, the credentials or the URL are wrong, or a field is
  refused. UsageError, at once.
- A prefill server that completes the request and hands nothing over has no connector that does. UsageError.
- A decode server's 5xx may be a handshake that is slow. It is asked again for as long as that may take; then it is
  asked the same prompt without a handover. Where it answers that, the two servers do not fit each other: UsageError.
- A proxy that cannot be reached, answers nothing that is an API's, or sends elsewhere: UsageError. What else it answers
  in place of a completion: DeployError, with its words.

Prompts carry a cache salt: no later request can hit what they leave in a cache.
"""

import asyncio
import json
import uuid
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp

from harness.clock import Clock
from harness.errors import DeployError, HarnessError, UsageError
from harness.preflight.words import shown_url, words
from harness.proxy.contract import Endpoint, decode_body, prefill_body
from harness.proxy.handover import IncompleteHandover, take_handover

T = TypeVar("T")

_RETRY = 0.5
REFUSALS_LAST = 20.0
"""Seconds after which servers that answer, and answer nothing but errors, are believed. A handshake that is only slow
times out after 5 s and works at the second or third try."""
SILENCE_LASTS = 60.0
"""The same for servers of somebody else's that answered a moment ago and now do not answer at all."""
ANSWER_LASTS = 300.0
"""Seconds after which one request of the first load is given up, unless the user allows less."""
EMPTY_HANDOVERS = 3
"""Completions in a row without transfer parameters after which a prefill server is believed to hand nothing over: one
alone may have been aborted."""
_TRIES = 3
"""Of each request of the first load but the first."""
_LARGEST_HEADER = 1 << 16
"""Bytes; as the load's own client takes (harness.load.client)."""
_FIRST_TOKEN_ID = 10
"""Above the special tokens of common tokenizers; a warm-up prompt's ids count up from here."""
PROMPT_TOKENS = 70
"""Two whole blocks and a partial one, at the CPU's block size."""
_PASSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Of the statuses 400 to 499, those that say nothing about the next try."""
_INCOMPATIBLE = ("compatibility hash mismatch", "incompatible configurations", "handshake compat")
"""In the words of a decode server: no later handshake will end otherwise (NIXL's, vLLM 0.32)."""
_UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.InvalidURL)
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""ValueError: what yarl raises for a port beyond 65535."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a deployment is asked."""

    model: str
    headers: Mapping[str, str]
    clock: Clock
    timeout: float
    """Seconds for all of it."""
    launched: bool = False
    """By the harness: then servers that do not come to transfer are not the user's to put right."""


async def warm_up_transfers(prefill: Sequence[str], decode: Sequence[str], how: WarmUp) -> None:
    """Hand one prompt from each prefill server to each decode server, until it works.

    Raises:
        UsageError: a pair can never transfer as it is configured.
        DeployError: a pair still failed at the deadline; carries the last answer.

    """
    deadline = how.clock.now() + how.timeout
    async with _open_session(how) as session:
        await all_or_first_error(_until_transferred(session, p, d, how, deadline) for p in prefill for d in decode)


async def warm_up_load(url: str, requests: int, how: WarmUp) -> list[float]:
    """Send requests through a proxy or server, the first alone, the others at once; seconds that each took.

    What refuses the very first one is told as it is. Others that are refused for once are sent again: what fails now
    and then is the load's to find, and the verdict's.

    Raises:
        UsageError: the URL, the credentials or the model's name are wrong.
        DeployError: anything else than a completion came back, or nothing within the time for all of it.

    """
    limit = aiohttp.ClientTimeout(total=min(how.timeout, ANSWER_LASTS))
    async with _open_session(how, limit) as session:
        first = [await _timed(session, url, how, tries=1) for _ in range(min(requests, 1))]
        others = (_timed(session, url, how, tries=_TRIES) for _ in range(requests - 1))
        return first + await all_or_first_error(others)


def _open_session(how: WarmUp, limit: aiohttp.ClientTimeout | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=how.headers,
        max_line_size=_LARGEST_HEADER,
        max_field_size=_LARGEST_HEADER,
        timeout=limit or aiohttp.ClientTimeout(total=ANSWER_LASTS),
    )


async def all_or_first_error(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; the first error ends the rest, and is raised as itself and not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _timed(session: aiohttp.ClientSession, url: str, how: WarmUp, *, tries: int) -> float:
    started = how.clock.now()
    for _ in range(tries - 1):
        try:
            await _completion(session, url, how)
            return how.clock.now() - started
        except _Refused as refused:
            if refused.permanent or refused.redirects:
                raise refused.final() from None
        except DeployError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
        await how.clock.sleep(_RETRY)
    try:
        await _completion(session, url, how)
    except _Refused as refused:
        raise refused.final() from None
    return how.clock.now() - started


async def _completion(session: aiohttp.ClientSession, url: str, how: WarmUp) -> None:
    try:
        raw = await _ask(session, url, json.dumps(_body(how.model)).encode(), how)
    except _NO_ANSWER as error:
        raise _unanswered(url, error, how) from error
    _refuse_unless_completion(url, raw, how)


def _unanswered(url: str, error: Exception, how: WarmUp) -> HarnessError:
    said = words(str(error), how.headers) or type(error).__name__
    if isinstance(error, _UNREACHABLE) or (
        isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError)
    ):
        return UsageError(
            f"The first request to {shown_url(url)} could not be sent: {said}. Check that it is up and reachable from "
            "here, and that --base-url is its address."
        )
    if isinstance(error, TimeoutError):
        return DeployError(
            f"The first request to {shown_url(url)} had no answer within {min(how.timeout, ANSWER_LASTS):g} s. "
            "Nothing was judged. Look at its log, and at the requests that wait in the servers behind it; allow more "
            "with --ready-check-timeout-sec if they are only slow."
        )
    return DeployError(
        f"The first request to {shown_url(url)} was not answered in a way that can be read: {said}. Nothing was "
        "judged. Look at its log, and at what stands between it and here."
    )


def _refuse_unless_completion(url: str, raw: bytes, how: WarmUp) -> None:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        raise UsageError(
            f"{shown_url(url)} answered the first request with 200 and something that is no JSON: "
            f"{words(raw, how.headers)!r}. Check that --base-url is the address of an OpenAI-compatible API."
        ) from None
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        raise DeployError(
            f"{shown_url(url)} answered the first request with 200 and no completion: {words(raw, how.headers)}. "
            "Nothing was judged. Look at its log: what it asked of the servers, and what they said."
        )


async def _until_transferred(
    session: aiohttp.ClientSession, prefill: str, decode: str, how: WarmUp, deadline: float
) -> None:
    patience = _Patience(prefill, decode, how, how.clock.now(), deadline)
    while True:
        try:
            await _transfer(session, prefill, decode, how)
        except _Refused as refused:
            if refused.permanent or refused.redirects:
                raise refused.final() from None
            if patience.exhausted or refused.incompatible:
                raise await _never_transfers(session, patience, refused) from None
        except IncompleteHandover as error:
            patience.empty += 1
            if patience.empty >= EMPTY_HANDOVERS:
                raise UsageError(_nothing_handed_over(prefill, str(error))) from None
        except _NO_ANSWER as error:
            if patience.unreachable:
                raise DeployError(patience.over(words(str(error) or type(error).__name__, how.headers))) from error
        else:
            return
        await how.clock.sleep(_RETRY)


@dataclass(slots=True)
class _Patience:
    """What has been tried between two servers."""

    prefill: str
    decode: str
    how: WarmUp
    started: float
    deadline: float
    empty: int = 0
    """Completions of the prefill server that handed nothing over."""

    @property
    def exhausted(self) -> bool:
        """Whether one more refusal is one too many."""
        now = self.how.clock.now()
        return now > self.deadline or now - self.started > REFUSALS_LAST

    @property
    def unreachable(self) -> bool:
        """Whether servers that do not answer are given up: those that were launched may still be loading."""
        lasts = self.deadline - self.started if self.how.launched else min(SILENCE_LASTS, self.deadline - self.started)
        return self.how.clock.now() - self.started > lasts

    def over(self, said: str) -> str:
        """That no transfer was seen, and what was said last."""
        seconds = self.how.clock.now() - self.started
        return (
            f"No KV transfer from {shown_url(self.prefill)} to {shown_url(self.decode)} within {seconds:.0f} s; the "
            f"last try ended in: {said}. Look at both servers' logs for NIXL's handshake; are both launched with a "
            "connector that hands KV over, and can decode reach prefill's side channel port?"
        )


async def _never_transfers(session: aiohttp.ClientSession, patience: _Patience, refused: "_Refused") -> HarnessError:
    """Why: a decode server that answers the same prompt by itself does not fit the prefill server."""
    how = patience.how
    alone = refused.url == patience.decode and await _answers_alone(session, patience.decode, how)
    if how.launched or not alone:
        return DeployError(patience.over(str(refused)))
    return UsageError(
        f"{shown_url(patience.decode)} answers a prompt by itself, and refuses it every time with KV from "
        f"{shown_url(patience.prefill)}: {refused}. The two servers do not fit each other, or decode cannot reach "
        "prefill's side channel (VLLM_NIXL_SIDE_CHANNEL_HOST and _PORT). Give both the same model, weights' path, "
        "dtype, KV cache dtype, connector and engine version; the decode server's log says what it found different."
    )


async def _answers_alone(session: aiohttp.ClientSession, url: str, how: WarmUp) -> bool:
    try:
        await _ask(session, url, json.dumps(_body(how.model)).encode(), how)
    except (_Refused, *_NO_ANSWER):
        return False
    return True


def _nothing_handed_over(prefill: str, said: str) -> str:
    return (
        f"The prefill server {shown_url(prefill)} completes a prompt that is to be decoded elsewhere, and hands "
        f"nothing over: {words(said)}. Launch it with a connector that hands KV to decode servers "
        "(--kv-transfer-config with NixlConnector, alone or in MultiConnector), and check that --prefill-url names "
        "the prefill server."
    )


async def _transfer(session: aiohttp.ClientSession, prefill: str, decode: str, how: WarmUp) -> None:
    body = _body(how.model)
    answer = await _ask(session, prefill, prefill_body(body, Endpoint.COMPLETIONS), how)
    params = take_handover(answer)
    await _ask(session, decode, decode_body(json.dumps(body).encode(), body, params), how)


class _Refused(Exception):  # noqa: N818 - reads as what happened
    """The server answered with something else than 200."""

    def __init__(self, url: str, status: int, said: str, model: str, location: str) -> None:
        super().__init__(
            f"{shown_url(url)} answered {status}: {said}" if said else f"{shown_url(url)} answered {status}"
        )
        self.url, self.status, self.said, self.model, self.location = url, status, said, model, location

    @property
    def permanent(self) -> bool:
        """Whether the next try will be answered in the same way."""
        return 400 <= self.status < 500 and self.status not in _PASSES

    @property
    def redirects(self) -> bool:
        """Whether it says that it is elsewhere."""
        return 300 <= self.status < 400

    @property
    def incompatible(self) -> bool:
        """Whether the server says that it will never read this peer's KV."""
        return any(sign in self.said.lower() for sign in _INCOMPATIBLE)

    def final(self) -> HarnessError:
        """As what the command ends with."""
        text = f"The first request was refused: {self}. Nothing was judged. {self._advice()}"
        limits = self.status == HTTPStatus.TOO_MANY_REQUESTS
        return UsageError(text) if self.permanent or self.redirects or limits else DeployError(text)

    def _advice(self) -> str:
        if self.redirects:
            return f"It sends clients to {shown_url(self.location) or 'another address'}: give the address itself."
        return _ADVICE.get(self.status, _ADVICE[400 if self.permanent else 500]).format(model=self.model)


_ADVICE = {
    400: (
        "It does not take a field of the request, or its value. The harness asks as vLLM's API is asked (token ids as "
        "the prompt, cache_salt, temperature): let the gateway pass these on, or give the servers' own address."
    ),
    401: "Give credentials that it takes: --header 'Authorization=Bearer ...'.",
    403: "Give credentials that it takes: --header 'Authorization=Bearer ...'.",
    404: (
        "Check that it serves the model {model!r} under this name (--served-model-name; GET /v1/models lists the "
        "names), and that the URL is that of an OpenAI-compatible API, without a path."
    ),
    429: "It takes fewer requests than the warm-up sends at once: raise its limit, or send less with --num-warmups.",
    500: "Look at its log: what it asked of the servers behind it, and what they answered.",
    503: "Try again when it and the servers behind it are ready; its log says what it waits for.",
}
"""By status; 400 and 500 stand for all others of their hundred."""


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, how: WarmUp) -> bytes:
    headers = {"Content-Type": "application/json", "X-Request-Id": f"warm-up-{uuid.uuid4()}"}
    # A redirect is not followed: most make a GET of a POST, and the run's own requests would meet it again.
    async with session.post(
        f"{url}{Endpoint.COMPLETIONS}", data=body, headers=headers, allow_redirects=False
    ) as response:
        raw = await response.read()
        if response.status != HTTPStatus.OK:
            location = response.headers.get("Location", "")
            raise _Refused(url, response.status, words(raw, how.headers), how.model, location)
        return raw


def _body(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(range(_FIRST_TOKEN_ID, _FIRST_TOKEN_ID + PROMPT_TOKENS)),
        "max_tokens": 4,
        "temperature": 0,
        "cache_salt": uuid.uuid4().hex,
    }
