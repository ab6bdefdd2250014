"""Builds the prompts, requests and phases of workloads."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any

from harness.catalogue.prompts import Prompts
from harness.catalogue.setting import Setting
from harness.scenario import LOAD_LOGPROBS, Altered, Endpoint, Message, Phase, Prompt, Request, Route, Sampling

MAX_TOKENS = 8
"""Tokens of an answer. A wrong block shows within them: the canary's first token depends on every block of its prompt.
"""

DEADLINE = 45.0
"""Seconds in which a request with a reference must end: longer than the lease of 30 s, and than NIXL's handshake."""


class Builder(Prompts):
    """Builds the requests of one workload for one setting.

    Requests are numbered as they are built. All have the same cache salt, made of the run's salt and the workload's
    name: prompts share cached prefixes within a workload, never across workloads or runs.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        super().__init__(setting, name)
        self.name = name
        self.setting = setting
        self._numbers = count()

    @property
    def block(self) -> int:
        """Tokens per block; the larger block size if prefill and decode differ."""
        return self.setting.block

    @property
    def salt(self) -> str:
        """The cache salt of every request."""
        return f"{self.setting.salt or 'run'}-{self.name}"

    def user(self, count: int) -> Message:
        """A user message of ``count`` words."""
        return Message("user", self.words(count))

    def ask(  # noqa: PLR0913 - the fields of a request; all but the prompt have defaults
        self,
        prompt: int | Prompt,
        *,
        route: Route = Route.PROXY,
        server: int | None = None,
        endpoint: Endpoint | None = None,
        stream: bool = True,
        continues: Request | None = None,
        expect_status: int | None = None,
        max_tokens: int = MAX_TOKENS,
        logprobs: int | None = LOAD_LOGPROBS,
        **sampling: Any,
    ) -> Request:
        """A greedy request; a number as prompt makes a new prompt of so many tokens. ``sampling``: see `Sampling`."""
        prompt = self.ids(prompt) if isinstance(prompt, int) else prompt
        chat = not isinstance(prompt, str) and any(isinstance(turn, Message) for turn in prompt)
        return Request(
            f"{self.name}-{next(self._numbers):03d}",
            prompt,
            Sampling(max_tokens=max_tokens, logprobs=logprobs, **sampling),
            route=route,
            server=server,
            endpoint=endpoint or (Endpoint.CHAT if chat else Endpoint.COMPLETIONS),
            stream=stream,
            cache_salt=self.salt,
            continues=None if continues is None else continues.request_id,
            expect_status=expect_status,
        )

    def on_prefill(self, prompt: int | Prompt, **fields: Any) -> Request:
        """A request to a prefill server directly, for one token: puts the prompt's blocks into the server's caches."""
        return self.ask(prompt, route=Route.PREFILL, max_tokens=1, **fields)

    def holding(self, prompt: int | Prompt) -> Request:
        """A request to a prefill server directly, which is to hold the prompt's KV and to answer with a reference."""
        return replace(self.on_prefill(prompt, stream=False, logprobs=None), holds=True)

    def handed(
        self, holding: Request, altered: Altered | None = None, *, again: bool = False, deadline: float = DEADLINE
    ) -> Request:
        """The same prompt to a decode server directly, with the reference that ``holding`` was given.

        It may be refused unless the reference is good: unaltered, and not ``again``, after its first use or its lease.
        ``again``: with another salt, so that decode does not find the prompt in its own caches. ``deadline``: seconds.
        """
        request = self.ask(holding.prompt, route=Route.DECODE)
        return replace(
            request,
            cache_salt=f"{self.salt}-again" if again else self.salt,
            reference_of=holding.request_id,
            altered=altered,
            may_be_refused=again or altered is not None,
            deadline=deadline,
        )

    def on_decode(self, prompt: int | Prompt, **fields: Any) -> Request:
        """A request to a decode server directly, for one token: puts the prompt's blocks into the server's caches."""
        return self.ask(prompt, route=Route.DECODE, max_tokens=1, **fields)


def together(name: str, requests: Iterable[Request]) -> Phase:
    """A counted phase whose requests are all in flight at once."""
    requests = tuple(requests)
    return Phase(name, requests, concurrency=len(requests))


def in_turn(name: str, requests: Iterable[Request]) -> Phase:
    """A counted phase whose requests are sent one after another, each when the previous one has ended."""
    return Phase(name, tuple(requests), concurrency=1)
