"""One request of a warm-up: its body, its answer, and what a refusal means.

A 4xx will not change: the model's name, the credentials or the URL are wrong, or a field is refused. Every prompt has a
cache salt of its own, so no later request can hit its blocks in a cache.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from harness.clock import Clock
from harness.errors import DeployError, HarnessError, UsageError
from harness.observe.bodies import body_of
from harness.preflight.quoting import quoted
from harness.proxy.contract import Endpoint
from harness.redact import redact_url

RETRY = 0.5
"""Seconds between two tries."""
ANSWER_LASTS = 300.0
"""Seconds after which one request of the first load is given up, unless the user allows less."""
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
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
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


def open_client(how: WarmUp, limit: aiohttp.ClientTimeout | None = None) -> aiohttp.ClientSession:
    """A client session with the user's headers; ``limit``: the time of one request, ``ANSWER_LASTS`` without."""
    return aiohttp.ClientSession(
        headers=how.headers,
        max_line_size=_LARGEST_HEADER,
        max_field_size=_LARGEST_HEADER,
        timeout=limit or aiohttp.ClientTimeout(total=ANSWER_LASTS),
    )


async def ask(session: aiohttp.ClientSession, url: str, body: bytes, how: WarmUp) -> bytes:
    """The body of the answer to a completion. Raises Refused for another status than 200, and one of ``NO_ANSWER``."""
    headers = {"Content-Type": "application/json", "X-Request-Id": f"warm-up-{uuid.uuid4()}"}
    # Redirects are not followed: most turn a POST into a GET, and each request of the run would be redirected again.
    async with session.post(
        f"{url}{Endpoint.COMPLETIONS}", data=body, headers=headers, allow_redirects=False
    ) as response:
        raw = await body_of(response)
        if response.status != HTTPStatus.OK:
            location = response.headers.get("Location", "")
            raise Refused(url, response.status, quoted(raw, how.headers), how.model, location)
        return raw


def body_for(model: str) -> dict[str, Any]:
    """The body of a completion of ``PROMPT_TOKENS`` tokens, with a cache salt of its own."""
    return {
        "model": model,
        "prompt": list(range(_FIRST_TOKEN_ID, _FIRST_TOKEN_ID + PROMPT_TOKENS)),
        "max_tokens": 4,
        "temperature": 0,
        "cache_salt": uuid.uuid4().hex,
    }


class Refused(Exception):  # noqa: N818 - reads as what happened
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
