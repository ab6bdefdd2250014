"""The first load: completions from a proxy, or from a server if there is no proxy.

It comes after the first KV transfers (``warmup_transfers.py``), which the proxy's requests rely on.

- A 4xx ends the warm-up at once (``warmup_request.py``).
- A proxy that cannot be reached, is no OpenAI-compatible API, or redirects: UsageError. Any other answer than a
  completion: DeployError that quotes the answer.
"""

import json

import aiohttp

from harness.deploy.together import all_or_first_error
from harness.deploy.warmup_request import ANSWER_LASTS, NO_ANSWER, RETRY, Refused, WarmUp, ask, body_for, open_client
from harness.errors import DeployError, HarnessError, UsageError
from harness.preflight.quoting import quoted
from harness.redact import redact_url

_TRIES = 3
"""Tries of each request of the first load after the first request."""
_UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.InvalidURL)


async def warm_up_load(url: str, requests: int, how: WarmUp) -> list[float]:
    """Send requests to a proxy or server, the first one alone, then the others at once; returns each one's seconds.

    If the first request is refused, the warm-up fails. The others are repeated if they fail: occasional failures are
    found by the load, and belong to the verdict.

    Raises UsageError if the URL, the credentials or the model's name are wrong, and DeployError if the answer is not a
    completion or does not come in time.
    """
    limit = aiohttp.ClientTimeout(total=min(how.timeout, ANSWER_LASTS))
    async with open_client(how, limit) as session:
        first = [await _timed(session, url, how, tries=1) for _ in range(min(requests, 1))]
        others = (_timed(session, url, how, tries=_TRIES) for _ in range(requests - 1))
        return first + await all_or_first_error(others)


async def _timed(session: aiohttp.ClientSession, url: str, how: WarmUp, *, tries: int) -> float:
    started = how.clock.now()
    for left in reversed(range(tries)):
        try:
            await _completion(session, url, how)
            break
        except Refused as refused:
            if not left or refused.permanent or refused.redirects:
                raise refused.final() from None
        except DeployError as error:
            if not left or isinstance(error.__cause__, TimeoutError):
                raise
        await how.clock.sleep(RETRY)
    return how.clock.now() - started


async def _completion(session: aiohttp.ClientSession, url: str, how: WarmUp) -> None:
    try:
        raw = await ask(session, url, json.dumps(body_for(how.model)).encode(), how)
    except NO_ANSWER as error:
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
