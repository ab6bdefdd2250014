"""A load from conversations of people with a model, in the form of the ShareGPT data set. Pure, but for the file.

    [{"id": "a1", "conversations": [{"from": "human", "value": "Hello!"}, {"from": "gpt", "value": "Hi there."}]}]

As in ``vllm bench serve``: conversations are taken in random order; the prompt is the first message, and the answer may
have as many tokens as the second message has, which a server counts, or ``--sharegpt-output-len``; conversations whose
prompt or answer has fewer than 4 tokens, whose prompt has more than 1,024, or both together more than 2,048, are left
out. In sessions, the person's later messages are later turns, and continue the answers that the servers really gave.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.loads.reading import read_dataset
from harness.loads.timing import TimedLoad
from harness.scenario import LOAD_LOGPROBS, Request, Sampling, Scenario

_NAME = "sharegpt"
_PURPOSE = "Wrong answers to prompts that people wrote, of the lengths that people write."
_FORM = '[{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]'
_USUAL = 128
_LEAST, _MOST_PROMPT, _MOST_TOTAL = 4, 1024, 2048
"""Tokens; vLLM's limits (benchmarks/datasets: is_valid_sequence)."""
_SPARE = 3
"""How many times the wanted number of conversations is looked at: many are too short or too long."""

Turn = tuple[str, str]
"""What the person says, and what the model answered."""


@dataclass(frozen=True, kw_only=True)
class ShareGptLoad(TimedLoad):
    """Greedy requests with prompts from a file of conversations, which is read at its first use."""

    path: Path
    num_prompts: int | None = None
    """Requests; None: 128, or as many as the file has."""
    output_len: int | None = None
    """Tokens of an answer, at most; None: as many as the file's answer has."""
    ignore_eos: bool = False
    """Whether each answer has its full length, even if the model ends it earlier."""
    tokens: tuple[tuple[int, int], ...] | None = None
    """Tokens of each turn's prompt and answer, in the order of :meth:`texts`; None: not known."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    @cached_property
    def sessions(self) -> tuple[tuple[Turn, ...], ...]:
        """The conversations that are looked at, in their random order. Raises UsageError."""
        try:
            content = json.loads(read_dataset(self.path, "JSON"))
        except ValueError as error:
            raise UsageError(f"{self.path} is not JSON: {error}. It must be of the form {_FORM}.") from None
        if not isinstance(content, list):
            raise UsageError(f"{self.path} is not a list of conversations. It must be of the form {_FORM}.")
        found = [turns for one in content if (turns := tuple(islice(_turns(one), self.turns)))]
        if not found:
            raise UsageError(f"{self.path} holds no message with an answer. It must be of the form {_FORM}.")
        random.Random(self.seed).shuffle(found)  # noqa: S311 - no secret
        return tuple(found[: _SPARE * (self.num_prompts or _USUAL) + _SPARE])

    def texts(self) -> Sequence[str]:
        """Prompt and answer of each turn, whose tokens a server must count before the load is sent."""
        return [text for session in self.sessions for turn in session for text in turn]

    def with_tokens(self, tokens: Sequence[Sequence[int]] | None) -> Self:
        """The load with the tokens of its texts. Raises UsageError if they are needed and not known."""
        if tokens is None and self.output_len is None:
            raise UsageError(
                "How long the answers of --dataset-name sharegpt are, a server must count in tokens, but no server "
                "answers POST /tokenize: give --sharegpt-output-len."
            )
        lengths = list(map(len, tokens or ()))
        return replace(self, tokens=None if tokens is None else tuple(zip(lengths[::2], lengths[1::2], strict=True)))

    def demands(self) -> Sequence[Demand]:
        """What the requests need of a server. Raises UsageError if the file cannot be read."""
        _ = self.sessions
        return (Demand(f"{self.path}", None, self.output_len or _LEAST),)

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Raises UsageError if the file has too few fitting conversations."""
        contexts = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
        usable = tuple(self._usable(min([_MOST_TOTAL, *contexts])))
        wanted = self.num_prompts or min(_USUAL, sum(map(len, usable)))
        requests = tuple(islice(self._requests(usable, salt), wanted))
        if len(requests) < max(wanted, 1):
            raise UsageError(
                f"{self.path} has {len(requests):,} requests of fitting length, and --num-prompts asks for {wanted:,}: "
                "ask for fewer, or name a larger file."
            )
        return Scenario(_NAME, _PURPOSE, (self.phase("load", requests),))

    def _usable(self, most: int) -> Iterator[list[tuple[str, int]]]:
        """Prompts with the tokens of their answers: the sessions, each up to the first turn that does not fit."""
        counts = iter(self.tokens or ())
        for session in self.sessions:
            fitting: list[tuple[str, int]] = []
            total, fits = 0, True
            for prompt, _ in session:
                asked, answer = next(counts, (_LEAST, self.output_len or _LEAST))
                answer = self.output_len or answer
                total += asked + answer
                short = asked < _LEAST or (self.output_len is None and answer < _LEAST)
                fits = fits and not short and asked <= _MOST_PROMPT and total <= most
                if fits:
                    fitting.append((prompt, answer))
            if fitting:
                yield fitting

    def _requests(self, sessions: Sequence[Sequence[tuple[str, int]]], salt: str) -> Iterator[Request]:
        number = 0
        for session in sessions:
            before = None
            for prompt, answer in session:
                sampling = Sampling(max_tokens=answer, logprobs=LOAD_LOGPROBS, ignore_eos=self.ignore_eos)
                request = Request(f"load-{number:05d}", prompt, sampling, cache_salt=salt, continues=before)
                yield request
                before, number = request.request_id, number + 1

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from ("--dataset-name", _NAME, "--dataset-path", str(self.path), *self.timing_words())
        yield from ("--num-prompts", str(self.num_prompts)) if self.num_prompts is not None else ()
        yield from ("--sharegpt-output-len", str(self.output_len)) if self.output_len is not None else ()
        yield from ["--ignore-eos"] if self.ignore_eos else []


def _turns(conversation: Any) -> Iterator[Turn]:
    """Messages of the conversation, each with the answer that follows, up to the first that is malformed."""
    messages = conversation.get("conversations") if isinstance(conversation, dict) else None
    said = [_said(one) for one in messages] if isinstance(messages, list) else []
    for (who, prompt), (after, answer) in list(pairwise(said))[::2]:
        if who == after or not prompt or not answer:
            return
        yield prompt, answer


def _said(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("value"), str):
        return "", ""
    return str(message.get("from", "")), message["value"]
