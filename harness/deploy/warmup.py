"""Warms a deployment up: afterwards every prefill server has handed KV to every decode server.

/health shows that a server answers, not that a transfer works. The first transfer makes NIXL's handshake between two
engines (about 5 s on two cores). The handshake may time out; the decode server then answers 500. So each pair of
servers is asked directly, prefill then decode, until a transfer works, and only then the proxy.

Failures are classified as follows:

- A 4xx will not change: the model's name, the credentials or the URL are wrong, or a field is refused. UsageError at
  once.
- A prefill server that completes the request without a handover has no connector that transfers KV. UsageError.
- A decode server's 5xx may come from a slow handshake. The request is repeated for as long as a handshake may take;
  then the same prompt is sent without a handover. If the server answers that, the two servers are incompatible:
  UsageError.
- A proxy that cannot be reached, is no OpenAI-compatible API, or redirects: UsageError. Any other answer than a
  completion: DeployError that quotes the answer.

Every prompt has a cache salt of its own, so no later request can hit its blocks in a cache.
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
from harness.observe.bodies import body_of
from harness.preflight.quoting import quoted
from harness.proxy.contract import Endpoint, decode_body, prefill_body
from harness.proxy.handover import IncompleteHandover, take_handover
from harness.redact import redact_url

T = TypeVar("T")

_RETRY = 0.5
"""Seconds between two tries."""
REFUSALS_LAST = 20.0
"""Seconds after which servers that answer with nothing but errors are given up. A slow handshake times out after 5 s
and works at the second or third try."""
SILENCE_LASTS = 60.0
"""Seconds after which servers that the harness did not launch, and that stopped answering, are given up."""
ANSWER_LASTS = 300.0
"""Seconds after which one request of the first load is given up, unless the user allows less."""
EMPTY_HANDOVERS = 3
"""Number of completions without transfer parameters after which a prefill server is given up: a single one may come
from an aborted request."""
_TRIES = 3
"""Tries of each request of the first load after the first request."""
_LARGEST_HEADER = 1 << 16
"""Bytes; as in harness.load.transport.connection."""
_FIRST_TOKEN_ID = 10
"""Above the special tokens of common tokenizers; a warm-up prompt's ids count up from here."""
PROMPT_TOKENS = 70
"""Two whole blocks and a partial one, with the block size on a CPU."""
_TEMPORARY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""The statuses from 400 to 499 that the next try may not get."""
_INCOMPATIBLE = ("compatibility hash mismatch", "incompatible configurations", "handshake compat")
"""Texts of NIXL (vLLM 0.32) in a decode server's error after which every later handshake fails too."""
_UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.InvalidURL)
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""ValueError: raised by yarl for a port beyond 65535."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The settings of a warm-up."""

    model: str
    headers: Mapping[str, str]
    clock: Clock
    timeout: float
    """Seconds for the whole warm-up."""
    launched: bool = False
    """Whether the harness launched the servers: then a transfer that never works is not the user's error."""


async def warm_up_transfers(prefill: Sequence[str], decode: Sequence[str], how: WarmUp) -> None:
    """Hand one prompt from each prefill server to each decode server, until all transfers work.

    Raises UsageError if a pair can never transfer as it is configured, and DeployError, with the last answer, if a pair
    still fails at the deadline.
    """
    deadline = how.clock.now() + how.timeout
    async with _open_session(how) as session:
        await all_or_first_error(_until_transferred(session, p, d, how, deadline) for p in prefill for d in decode)


async def warm_up_load(url: str, requests: int, how: WarmUp) -> list[float]:
    """Send requests to a proxy or server, the first one alone, then the others at once; returns each one's seconds.

    If the first request is refused, the warm-up fails. The others are repeated if they fail: occasional failures are
    found by the load, and belong to the verdict.

    Raises UsageError if the URL, the credentials or the model's name are wrong, and DeployError if the answer is not a
    completion or does not come in time.
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
    """All results, in order; the first error cancels the rest, and is raised without an exception group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _timed(session: aiohttp.ClientSession, url: str, how: WarmUp, *, tries: int) -> float:
    started = how.clock.now()
    for left in reversed(range(tries)):
        try:
            await _completion(session, url, how)
            break
        except _Refused as refused:
            if not left or refused.permanent or refused.redirects:
                raise refused.final() from None
        except DeployError as error:
            if not left or isinstance(error.__cause__, TimeoutError):
                raise
        await how.clock.sleep(_RETRY)
    return how.clock.now() - started


async def _completion(session: aiohttp.ClientSession, url: str, how: WarmUp) -> None:
    try:
        raw = await _ask(session, url, json.dumps(_body(how.model)).encode(), how)
    except _NO_ANSWER as error:
        raise _unanswered(url, error, how) from error
    _require_completion(url, raw, how)


def _unanswered(url: str, error: Exception, how: WarmUp) -> HarnessError:
    reason = quoted(str(error), how.headers) or type(error).__name__
    unsendable = isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError)
    if unsendable or isinstance(error, _UNREACHABLE):
        return UsageError(
            f"The first request to {redact_url(url)} could not be sent: {reason}. Check that the server is up and "
            "reachable from this machine, and that --base-url is its address."
        )
    if isinstance(error, TimeoutError):
        return DeployError(
            f"The first request to {redact_url(url)} got no answer within {min(how.timeout, ANSWER_LASTS):g} s. "
            "Nothing was judged. Look at the log there, and at requests waiting in the servers behind it; if the "
            "servers are only slow, allow more time with --ready-check-timeout-sec."
        )
    return DeployError(
        f"The first request to {redact_url(url)} got an answer that cannot be read: {reason}. Nothing was judged. Look "
        "at its log, and at the gateways between it and this machine."
    )


def _require_completion(url: str, raw: bytes, how: WarmUp) -> None:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        raise UsageError(
            f"{redact_url(url)} answered the first request with 200 and a body that is not JSON: "
            f"{quoted(raw, how.headers)!r}. Check that --base-url is the address of an OpenAI-compatible API."
        ) from None
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        raise DeployError(
            f"{redact_url(url)} answered the first request with 200, but not with a completion: "
            f"{quoted(raw, how.headers)}. Nothing was judged. Look at its log for the requests it sent to the servers, "
            "and their answers."
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
            if patience.refused_too_long or refused.incompatible:
                raise await _never_transfers(session, patience, refused) from None
        except IncompleteHandover as error:
            patience.empty += 1
            if patience.empty >= EMPTY_HANDOVERS:
                raise UsageError(_nothing_handed_over(prefill, str(error))) from None
        except _NO_ANSWER as error:
            if patience.silent_too_long:
                reason = quoted(str(error) or type(error).__name__, how.headers)
                raise DeployError(patience.no_transfer(reason)) from error
        else:
            return
        await how.clock.sleep(_RETRY)


@dataclass(slots=True)
class _Patience:
    """How long to go on trying transfers between two servers."""

    prefill: str
    decode: str
    how: WarmUp
    started: float
    deadline: float
    empty: int = 0
    """Completions of the prefill server without a handover."""

    @property
    def refused_too_long(self) -> bool:
        """Whether servers that answer with errors are given up."""
        now = self.how.clock.now()
        return now > self.deadline or now - self.started > REFUSALS_LAST

    @property
    def silent_too_long(self) -> bool:
        """Whether servers that do not answer are given up; launched servers may still be loading."""
        lasts = self.deadline - self.started if self.how.launched else min(SILENCE_LASTS, self.deadline - self.started)
        return self.how.clock.now() - self.started > lasts

    def no_transfer(self, reason: str) -> str:
        """The message that no transfer worked; ``reason``: why the last try failed."""
        seconds = self.how.clock.now() - self.started
        return (
            f"No KV transfer from {redact_url(self.prefill)} to {redact_url(self.decode)} worked within {seconds:.0f} "
            f"s; the last try failed: {reason}. Look for NIXL's handshake in both servers' logs. Check that both are "
            "launched with a connector that transfers KV, and that the decode server can reach the prefill server's "
            "side channel port."
        )


async def _never_transfers(session: aiohttp.ClientSession, patience: _Patience, refused: "_Refused") -> HarnessError:
    """The error to raise: if the decode server answers without a handover, the two servers are incompatible."""
    how = patience.how
    alone = refused.url == patience.decode and await _answers_alone(session, patience.decode, how)
    if how.launched or not alone:
        return DeployError(patience.no_transfer(str(refused)))
    return UsageError(
        f"{redact_url(patience.decode)} answers a prompt by itself, but always refuses it with KV from "
        f"{redact_url(patience.prefill)}: {refused}. The two servers are incompatible, or the decode server cannot "
        "reach the prefill server's side channel (VLLM_NIXL_SIDE_CHANNEL_HOST and _PORT). Launch both with the same "
        "model path, dtype, KV cache dtype, connector and engine version; the decode server's log names the difference."
    )


async def _answers_alone(session: aiohttp.ClientSession, url: str, how: WarmUp) -> bool:
    try:
        await _ask(session, url, json.dumps(_body(how.model)).encode(), how)
    except (_Refused, *_NO_ANSWER):
        return False
    return True


def _nothing_handed_over(prefill: str, reason: str) -> str:
    return (
        f"The prefill server {redact_url(prefill)} completes a prompt that another server should decode, but hands no "
        f"KV over: {quoted(reason)}. Launch it with a connector that hands KV to decode servers (--kv-transfer-config "
        "with NixlConnector, alone or in MultiConnector), and check that --prefill-url is the address of the prefill "
        "server."
    )


async def _transfer(session: aiohttp.ClientSession, prefill: str, decode: str, how: WarmUp) -> None:
    body = _body(how.model)
    answer = await _ask(session, prefill, prefill_body(body, Endpoint.COMPLETIONS), how)
    params = take_handover(answer).params
    await _ask(session, decode, decode_body(json.dumps(body).encode(), body, params), how)


class _Refused(Exception):  # noqa: N818 - reads as what happened
    """The server answered with another status than 200."""

    def __init__(self, url: str, status: int, message: str, model: str, location: str) -> None:
        super().__init__(f"{redact_url(url)} answered {status}" + (f": {message}" if message else ""))
        self.url, self.status, self.message, self.model, self.location = url, status, message, model, location

    @property
    def permanent(self) -> bool:
        """Whether the next try will get the same answer."""
        return 400 <= self.status < 500 and self.status not in _TEMPORARY

    @property
    def redirects(self) -> bool:
        """Whether the server redirects to another address."""
        return 300 <= self.status < 400

    @property
    def incompatible(self) -> bool:
        """Whether the server reports that it can never read the peer's KV."""
        return any(sign in self.message.lower() for sign in _INCOMPATIBLE)

    def final(self) -> HarnessError:
        """The error that ends the warm-up."""
        text = f"The first request was refused: {self}. Nothing was judged. {self._advice()}"
        limits = self.status == HTTPStatus.TOO_MANY_REQUESTS
        return UsageError(text) if self.permanent or self.redirects or limits else DeployError(text)

    def _advice(self) -> str:
        if self.redirects:
            return f"It redirects to {redact_url(self.location) or 'another address'}: give the final address itself."
        return _ADVICE.get(self.status, _ADVICE[400 if self.permanent else 500]).format(model=self.model)


_CREDENTIALS = "Give valid credentials, for example with --header 'Authorization=Bearer ...'."
_ADVICE = {
    400: (
        "It does not accept a field of the request, or the field's value. The harness uses vLLM's API (token ids as "
        "the prompt, cache_salt, temperature): let the gateway pass these on, or give the address of the proxy or "
        "server behind it."
    ),
    401: _CREDENTIALS,
    403: _CREDENTIALS,
    404: (
        "Check that it serves a model with the name {model!r} (--served-model-name sets it; GET /v1/models lists the "
        "names), and that the URL is the address of an OpenAI-compatible API, without a path."
    ),
    429: (
        "It accepts fewer requests than the warm-up sends at once: raise its limit, or send fewer with --num-warmups."
    ),
    500: "Look at its log for the requests it sent to the servers behind it, and their answers.",
    503: "Try again when it and the servers behind it are ready; its log may show what it waits for.",
}
"""Advice by status; 400 and 500 also stand for all other 4xx and 5xx."""


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, how: WarmUp) -> bytes:
    headers = {"Content-Type": "application/json", "X-Request-Id": f"warm-up-{uuid.uuid4()}"}
    # Redirects are not followed: most turn a POST into a GET, and each request of the run would be redirected again.
    async with session.post(
        f"{url}{Endpoint.COMPLETIONS}", data=body, headers=headers, allow_redirects=False
    ) as response:
        raw = await body_of(response)
        if response.status != HTTPStatus.OK:
            location = response.headers.get("Location", "")
            raise _Refused(url, response.status, quoted(raw, how.headers), how.model, location)
        return raw


def _body(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(range(_FIRST_TOKEN_ID, _FIRST_TOKEN_ID + PROMPT_TOKENS)),
        "max_tokens": 4,
        "temperature": 0,
        "cache_salt": uuid.uuid4().hex,
    }
