"""The random load: many different prompts at once, none of which is in any cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.loads.packed import packed
from harness.loads.timing import TimedLoad
from harness.loads.token_ids import (
    USUAL_BLOCK_SIZE,
    Ids,
    canaries,
    ordinary,
    ordinary_of,
    refuse_unless_fits,
    smallest_block,
)
from harness.scenario import LOAD_LOGPROBS, Phase, Request, Route, Sampling, Scenario

__all__ = ["USUAL_BLOCK_SIZE", "RandomLoad", "random_load"]

_PURPOSE = (
    "Silent recomputation, lost or mixed-up KV, and leaks under concurrent cold requests: the KV of every prompt token "
    "must be transferred from prefill to decode, and every answer must be the same as without transfer."
)
_NAME = "random_load"
_OUTPUTS = 3
"""The stream of random numbers for the lengths of answers, beside that of the prompts."""


@dataclass(frozen=True, kw_only=True)
class RandomLoad(TimedLoad):
    """Greedy requests with random prompts, no two of which share a first block. Named as in ``vllm bench serve``."""

    num_prompts: int = 128
    input_len: tuple[int, int] = (20, 400)
    """Tokens of a prompt, least and most, both included."""
    output_len: int | tuple[int, int] = 20
    """Tokens of an answer, at most; with two numbers, drawn for each request, both included."""
    prefix_len: int = 0
    """Tokens before each prompt that are the same in all of them, in addition to ``input_len``."""
    ignore_eos: bool = False
    """Whether each answer has its full length, even if the model ends it earlier."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    @cached_property
    def output_range(self) -> tuple[int, int]:
        """Tokens of an answer, least and most."""
        return (self.output_len, self.output_len) if isinstance(self.output_len, int) else self.output_len

    def demands(self) -> Sequence[Demand]:
        """What the longest request needs of a server."""
        longest, answer = self.prefix_len + self.input_len[1], self.output_range[1]
        source = f"the load (--random-input-len up to {self.input_len[1]}, --random-output-len {answer})"
        if self.turns > 1:
            source += f", the last of {self.turns} turns,"
        return (Demand(source, self.turns * longest + (self.turns - 1) * answer, answer),)

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Raises UsageError if the model's vocabulary is not known."""
        requests = random_requests(self, ordinary_of(deployment), smallest_block(deployment), salt)
        return Scenario(_NAME, _PURPOSE, (self.phase("load", self.in_sessions(requests)),))

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from self.timing_words()
        yield from ("--num-prompts", str(self.num_prompts), "--random-input-len", _words(self.input_len))
        yield from ("--random-output-len", _words(self.output_range), *(["--ignore-eos"] if self.ignore_eos else []))
        if self.prefix_len:
            yield from ("--random-prefix-len", str(self.prefix_len))


def _words(span: tuple[int, int]) -> str:
    return f"{span[0]}:{span[1]}"


def random_load(  # noqa: PLR0913 - a load's parameters are its command line
    *,
    seed: int,
    num_prompts: int,
    concurrency: int,
    vocab_size: int,
    special_token_ids: Sequence[int],
    block_size: int,
    input_len: tuple[int, int] = (20, 400),
    output_len: int = 20,
    ignore_eos: bool = False,
    salt: str | None = None,
) -> Scenario:
    """``num_prompts`` greedy requests through the proxy, in a closed loop; see :func:`random_requests`."""
    load = RandomLoad(
        seed=seed,
        num_prompts=num_prompts,
        concurrency=concurrency,
        input_len=input_len,
        output_len=output_len,
        ignore_eos=ignore_eos,
    )
    requests = random_requests(load, ordinary(vocab_size, special_token_ids), block_size, salt)
    return Scenario(_NAME, _PURPOSE, (Phase("load", tuple(packed(requests)), concurrency),))


def random_requests(load: RandomLoad, ids: Ids, block_size: int, salt: str | None) -> Iterator[Request]:
    """The requests of the load, made one by one; ``ids``: the token ids that prompts are made of.

    ``salt``: new for each run against a deployment that outlives the run; else a run with the same seed hits the
    previous run's blocks.

    Each prompt opens (after the common prefix, if there is one) with a canary: its number, written in as few tokens as
    the largest number needs. So no two prompts share a first block, no prompt hits blocks of another, and an answer
    that belongs to another prompt cannot be right by chance. The rest of a prompt is random, without special tokens;
    all lengths are equally likely.

    For each output token the leading log-probabilities are asked for (``LOAD_LOGPROBS``): the runner-up's is needed to
    judge a token, and all of the first token's can be compared with the prefill server's.

    Raises UsageError if the canary does not fit into one block or into the shortest prompt.
    """
    least, most = load.input_len
    if most < least:
        raise UsageError(f"Prompt lengths from {least} to {most} tokens: the first must not exceed the second.")
    opening = canaries(load.num_prompts, ids)
    refuse_unless_fits(opening.shape[1], block_size, least)
    outputs = np.random.default_rng((load.seed, _OUTPUTS)).integers(
        *load.output_range, size=load.num_prompts, endpoint=True
    )
    how = {
        output: Sampling(max_tokens=output, logprobs=LOAD_LOGPROBS, ignore_eos=load.ignore_eos)
        for output in set(outputs.tolist())
    }
    return (
        Request(f"load-{number:05d}", prompt, how[output], route=Route.PROXY, cache_salt=salt)
        for number, (prompt, output) in enumerate(zip(_prompts(load, opening, ids), outputs.tolist(), strict=True))
    )


def _prompts(load: RandomLoad, opening: Ids, ids: Ids) -> Iterator[tuple[int, ...]]:
    rng = np.random.default_rng(load.seed)
    least, most = load.input_len
    lengths = rng.integers(least, most, size=len(opening), endpoint=True)
    # In as few bytes as they need, since all of them are drawn before the prefix is, which begins the first prompt.
    smallest = np.min_scalar_type(ids[-1])
    rests = [rng.choice(ids, size=length - opening.shape[1]).astype(smallest) for length in lengths]
    prefix = rng.choice(ids, size=load.prefix_len).tolist()
    for canary, rest in zip(opening, rests, strict=True):
        yield (*prefix, *canary.tolist(), *rest.tolist())
