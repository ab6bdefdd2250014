"""The first KV transfers: each prefill server hands KV to each decode server.

/health shows that a server answers, not that a transfer works. The first transfer makes NIXL's handshake between two
engines (about 5 s on two cores). The handshake may time out; the decode server then answers 500. So each pair of
servers is asked directly, prefill then decode, until a transfer works.

- A 4xx ends the warm-up at once (``warmup_request.py``).
- A prefill server that completes the request without a handover has no connector that transfers KV. UsageError.
- A decode server's 5xx may come from a slow handshake. The request is repeated for as long as a handshake may take;
  then the same prompt is sent without a handover. If the server answers that, the two servers are incompatible:
  UsageError.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from harness.deploy.together import all_or_first_error
from harness.deploy.warmup_request import NO_ANSWER, RETRY, Refused, WarmUp, ask, body_for, open_client
from harness.errors import DeployError, HarnessError, UsageError
from harness.preflight.quoting import quoted
from harness.proxy.contract import Endpoint, decode_body, prefill_body
from harness.proxy.handover import IncompleteHandover, take_handover
from harness.redact import redact_url

REFUSALS_LAST = 20.0
"""Seconds after which servers that answer with nothing but errors are given up. A slow handshake times out after 5 s
and works at the second or third try."""
SILENCE_LASTS = 60.0
"""Seconds after which servers that the harness did not launch, and that stopped answering, are given up."""
EMPTY_HANDOVERS = 3
"""Number of completions without transfer parameters after which a prefill server is given up: a single one may come
from an aborted request."""


async def warm_up_transfers(prefill: Sequence[str], decode: Sequence[str], how: WarmUp) -> None:
    """Hand one prompt from each prefill server to each decode server, until all transfers work.

    Raises UsageError if a pair can never transfer as it is configured, and DeployError, with the last answer, if a pair
    still fails at the deadline.
    """
    deadline = how.clock.now() + how.timeout
    async with open_client(how) as session:
        await all_or_first_error(_until_transferred(session, p, d, how, deadline) for p in prefill for d in decode)


async def _until_transferred(
    session: aiohttp.ClientSession, prefill: str, decode: str, how: WarmUp, deadline: float
) -> None:
    patience = _Patience(prefill, decode, how, how.clock.now(), deadline)
    while True:
        try:
            await _transfer(session, prefill, decode, how)
        except Refused as refused:
            if refused.permanent or refused.redirects:
                raise refused.final() from None
            if patience.refused_too_long or refused.incompatible:
                raise await _never_transfers(session, patience, refused) from None
        except IncompleteHandover as error:
            patience.empty += 1
            if patience.empty >= EMPTY_HANDOVERS:
                raise UsageError(_nothing_handed_over(prefill, str(error))) from None
        except NO_ANSWER as error:
            if patience.silent_too_long:
                reason = quoted(str(error) or type(error).__name__, how.headers)
                raise DeployError(patience.no_transfer(reason)) from error
        else:
            return
        await how.clock.sleep(RETRY)


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


async def _never_transfers(session: aiohttp.ClientSession, patience: _Patience, refused: Refused) -> HarnessError:
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
        await ask(session, url, json.dumps(body_for(how.model)).encode(), how)
    except (Refused, *NO_ANSWER):
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
    body = body_for(how.model)
    answer = await ask(session, prefill, prefill_body(body, Endpoint.COMPLETIONS), how)
    params = take_handover(answer).params
    await ask(session, decode, decode_body(json.dumps(body).encode(), body, params), how)
