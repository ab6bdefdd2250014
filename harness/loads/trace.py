"""A load from a trace: requests at the times, and of the sizes, that a real service had. Pure, but for the file.

Each line of the file is one request, as in the traces that the Mooncake project publishes:

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}

``timestamp``: milliseconds. ``hash_ids``: one for each block of 512 tokens of the prompt, the last of which may be
incomplete. Prompts with the same id at the same place share the tokens of this block. The texts are not published:
each id's tokens are random, made from the seed and the id, so that equal ids are equal tokens and caches are hit as in
the service. What a prompt has beyond its ids' blocks is random and its own.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.loads.reading import read_dataset
from harness.loads.timing import TimedLoad
from harness.loads.token_ids import Ids, ordinary_of
from harness.scenario import LOAD_LOGPROBS, Request, Sampling, Scenario

_NAME = "trace"
_PURPOSE = "Wrong answers under the load of a recorded service: its arrival times, its lengths, its shared prefixes."
_FORM = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}'
_SHARED, _OWN = 1, 2
"""The streams of random numbers: of the blocks that have ids, and of other tokens."""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One request of the trace."""

    number: int
    """Line number in the file, from 1."""
    timestamp: float
    """Milliseconds."""
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TraceLoad(TimedLoad):
    """The requests of a trace file (:mod:`harness.loads.trace`), which is read at its first use."""

    path: Path
    num_prompts: int | None = None
    """Lines taken from the beginning of the file; None: all."""
    block_size: int = 512
    """Tokens for which one hash id stands."""
    speedup: float = 1.0
    """By how much faster than in the trace requests are sent: 2 halves all times."""
    ignore_eos: bool = False
    """Whether each answer has its ``output_length``, even if the model ends it earlier."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    @property
    def is_open(self) -> bool:
        """True: a trace has times of its own."""
        return True

    @cached_property
    def lines(self) -> tuple[TraceLine, ...]:
        """The file's requests. Raises UsageError."""
        text = read_dataset(self.path, "JSONL")
        lines = tuple(_lines(text, str(self.path), self.block_size))[: self.num_prompts]
        if not lines:
            raise UsageError(f"{self.path} holds no request. Write one request per line: {_FORM}.")
        for before, after in pairwise(lines):
            if after.timestamp < before.timestamp:
                raise UsageError(
                    f"{self.path}, line {after.number}: its timestamp is {after.timestamp:g}, earlier than that of the "
                    "line before: sort the file by timestamp."
                )
        return lines

    def demands(self) -> Sequence[Demand]:
        """What each request needs of a server. Raises UsageError if the file cannot be read."""
        return tuple(
            Demand(f"{self.path}, line {one.number}", one.input_length, one.output_length) for one in self.lines
        )

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Raises UsageError if the model's vocabulary is not known."""
        blocks = _blocks(self.seed, ordinary_of(deployment), self.block_size)
        requests = [self._request(number, line, blocks, salt) for number, line in enumerate(self.lines)]
        began = self.lines[0].timestamp
        due = [(line.timestamp - began) / 1000 / self.speedup for line in self.lines]
        return Scenario(_NAME, _PURPOSE, (self.phase("load", requests, due=due),))

    def _request(self, number: int, line: TraceLine, blocks: Callable[[int, int], list[int]], salt: str) -> Request:
        prompt = [token for name in line.hash_ids for token in blocks(_SHARED, name)][: line.input_length]
        while (missing := line.input_length - len(prompt)) > 0:
            # The line's number and the place make these tokens different from all others.
            prompt += blocks(_OWN, (line.number << 32) + len(prompt))[:missing]
        sampling = Sampling(max_tokens=line.output_length, logprobs=LOAD_LOGPROBS, ignore_eos=self.ignore_eos)
        return Request(f"load-{number:05d}", tuple(prompt), sampling, cache_salt=salt)

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from ("--dataset-name", _NAME, "--dataset-path", str(self.path), *self.timing_words())
        yield from ("--num-prompts", str(self.num_prompts)) if self.num_prompts is not None else ()
        yield from ("--trace-block-size", str(self.block_size), "--trace-speedup", f"{self.speedup:.15g}")
        yield from ["--ignore-eos"] if self.ignore_eos else []


def _blocks(seed: int, ids: Ids, size: int) -> Callable[[int, int], list[int]]:
    """A function from a stream and a number to the block's ``size`` tokens."""

    @cache
    def block(stream: int, number: int) -> list[int]:
        drawn: list[int] = np.random.default_rng((seed, stream, number)).choice(ids, size=size).tolist()
        return drawn

    return block


def _lines(text: str, name: str, block_size: int) -> Iterator[TraceLine]:
    for number, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield _line(json.loads(content), number, block_size)
            except ValueError as error:
                why = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
                raise UsageError(f"{name}, line {number}: {why}. Each line is one request: {_FORM}.") from None


def _line(content: object, number: int, block_size: int) -> TraceLine:
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one type of error for every fault of a line
    timestamp = content.get("timestamp")
    if not isinstance(timestamp, int | float) or isinstance(timestamp, bool) or not 0 <= timestamp < 1e15:
        raise ValueError(f"its timestamp is {timestamp!r}, and must be a number of milliseconds, 0 or more")
    prompt, answer = (_positive(content, name) for name in ("input_length", "output_length"))
    return TraceLine(number, timestamp, prompt, answer, _hash_ids(content, prompt, block_size))


def _positive(content: Mapping[str, Any], name: str) -> int:
    value = content.get(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"its {name} is {value!r}, and must be a whole number of at least 1")
    return value


def _hash_ids(content: Mapping[str, Any], prompt: int, block_size: int) -> tuple[int, ...]:
    ids = content.get("hash_ids", [])
    if not isinstance(ids, list) or not all(type(one) is int and one >= 0 for one in ids):
        raise ValueError("its hash_ids must be a list of whole numbers, 0 or more")
    if (len(ids) - 1) * block_size >= prompt:
        raise ValueError(
            f"it has {len(ids)} hash_ids for a prompt of {prompt} tokens, but each stands for {block_size} tokens "
            "(--trace-block-size)"
        )
    return tuple(ids)
