"""What a workload is written with: prompts, requests and phases that bear its name."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from harness.catalogue.prompts import Prompts
from harness.catalogue.setting import Setting
from harness.scenario import Endpoint, Message, Phase, Prompt, Request, Route, Sampling

MAX_TOKENS = 8
"""Enough for a wrong block to show: the canary's first token already depends on every block of its prompt."""
MARGINS = 2
"""Log-probabilities asked per output token: the sampled one's and the runner-up's, which tells a tie from a fault."""


class Builder:
    """One workload being written for one setting.

    Requests are numbered in the order in which they are made. All carry one cache salt, the run's and the workload's:
    within a workload prompts meet in the caches as they should, and never across workloads or runs.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        self.setting = setting
        self._prompts = Prompts(setting, name)
        self._numbers = count()

    @property
    def block(self) -> int:
        """Tokens per block, of the larger where the two differ."""
        return self.setting.block

    @property
    def salt(self) -> str:
        """Of every request."""
        return f"{self.setting.salt or 'run'}-{self.name}"

    def ids(self, length: int) -> tuple[int, ...]:
        """A prompt of so many tokens that no other of the workload shares a block with."""
        return self._prompts.ids(length)

    def more(self, length: int) -> tuple[int, ...]:
        """Tokens that go on from others."""
        return self._prompts.more(length)

    def words(self, count: int) -> str:
        """A text of so many words, about one token each."""
        return self._prompts.words(count)

    def user(self, count: int) -> Message:
        """A user's message of so many words."""
        return Message("user", self.words(count))

    def ask(  # noqa: PLR0913 - a request is what its fields say; all but the prompt have defaults
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
        logprobs: int | None = MARGINS,
        **sampling: Any,
    ) -> Request:
        """A greedy request; a number asks for a prompt of so many tokens. ``sampling``: fields of `Sampling`."""
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
        """Sent to a prefill server alone, one token: leaves the prompt's blocks in its caches."""
        return self.ask(prompt, route=Route.PREFILL, max_tokens=1, **fields)

    def on_decode(self, prompt: int | Prompt, **fields: Any) -> Request:
        """The same on a decode server."""
        return self.ask(prompt, route=Route.DECODE, max_tokens=1, **fields)


def together(name: str, requests: Iterable[Request]) -> Phase:
    """A counted phase of requests that are all in flight at once."""
    requests = tuple(requests)
    return Phase(name, requests, concurrency=len(requests))


def in_turn(name: str, requests: Iterable[Request]) -> Phase:
    """A counted phase of requests of which each is sent when the one before has ended."""
    return Phase(name, tuple(requests), concurrency=1)
