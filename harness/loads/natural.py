"""The natural load: English prompts, made by the rules of :mod:`harness.loads.grammar`, of exact lengths in tokens.

Models answer text as they do in service, which they do not answer random tokens. A prompt's length is exact because a
server turns the text into token ids first, which are then cut and sent.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.loads.grammar import paragraph, question
from harness.loads.timing import TimedLoad
from harness.scenario import LOAD_LOGPROBS, Request, Sampling, Scenario

_NAME = "natural"
_PURPOSE = (
    "Silent recomputation, lost or mixed-up KV, and leaks under concurrent English prompts, none of which is cached."
)


@dataclass(frozen=True, kw_only=True)
class NaturalLoad(TimedLoad):
    """Greedy requests with prompts of English text that end in a question, if they are long enough."""

    num_prompts: int = 128
    input_len: tuple[int, int] = (20, 400)
    """Tokens of a prompt, least and most, both included."""
    output_len: int = 20
    """Tokens of an answer, at most."""
    ignore_eos: bool = False
    """Whether each answer has ``output_len`` tokens, even if the model ends it earlier."""
    tokens: tuple[tuple[int, ...], ...] = ()
    """The token ids of :meth:`texts`; empty: not known yet."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        rng = np.random.default_rng(self.seed)
        return tuple(rng.integers(*self.input_len, size=self.num_prompts, endpoint=True).tolist())

    def texts(self) -> Sequence[str]:
        """For each prompt a text and a question: what a server must turn into token ids before the load is sent."""
        rng = random.Random(self.seed)  # noqa: S311 - no secret
        # A token is seldom more than a word, so a text of so many words has enough tokens.
        return [
            text
            for number, length in enumerate(self._lengths, 1)
            for text in (paragraph(number, length + 8, rng), question(rng))
        ]

    def with_tokens(self, tokens: Sequence[Sequence[int]] | None) -> Self:
        """The load with the token ids of its texts. Raises UsageError if there are none."""
        if tokens is None:
            raise UsageError(
                "The prompts of --dataset-name natural have exact lengths in tokens, so a server must turn text into "
                "token ids, but no server answers POST /tokenize: use --dataset-name random, or let the harness reach "
                "the servers' /tokenize."
            )
        return replace(self, tokens=tuple(map(tuple, tokens)))

    def demands(self) -> Sequence[Demand]:
        """What the longest request needs of a server."""
        longest = self.turns * self.input_len[1] + (self.turns - 1) * self.output_len
        return (Demand(f"the load (--input-len up to {self.input_len[1]})", longest, self.output_len),)

    def scenario(self, _deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Its texts must have been turned into tokens before."""
        sampling = Sampling(max_tokens=self.output_len, logprobs=LOAD_LOGPROBS, ignore_eos=self.ignore_eos)
        bodies, questions = self.tokens[::2], self.tokens[1::2]
        requests = (
            Request(f"load-{number:05d}", _prompt(body, ask, length), sampling, cache_salt=salt)
            for number, (body, ask, length) in enumerate(zip(bodies, questions, self._lengths, strict=True))
        )
        return Scenario(_NAME, _PURPOSE, (self.phase("load", self.in_sessions(requests)),))

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from ("--dataset-name", _NAME, *self.timing_words(), "--num-prompts", str(self.num_prompts))
        yield from ("--input-len", f"{self.input_len[0]}:{self.input_len[1]}", "--output-len", str(self.output_len))
        yield from ["--ignore-eos"] if self.ignore_eos else []


def _prompt(body: Sequence[int], ask: Sequence[int], length: int) -> tuple[int, ...]:
    """``length`` tokens: the beginning of the text, and the question if that leaves half of the prompt to the text."""
    end = ask if 2 * len(ask) <= length else ()
    if len(body) + len(end) < length:
        raise UsageError(
            f"The servers' tokenizer makes only {len(body)} tokens of a text that has more than {length} words: use "
            "--dataset-name random."
        )
    return (*body[: length - len(end)], *end)
