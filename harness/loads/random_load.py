"""The random load: many different prompts at once, none of which is in any cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.scenario import LOAD_LOGPROBS, Phase, Request, Route, Sampling, Scenario

Ids = npt.NDArray[np.int64]
"""Token ids."""

_PURPOSE = (
    "Silent recomputation, lost or mixed-up KV, and leaks under concurrent cold requests: the KV of every prompt token "
    "must be transferred from prefill to decode, and every answer must be the same as without transfer."
)
USUAL_BLOCK_SIZE = 16
"""Tokens; vLLM's default, for servers that do not report their block size."""
_NAME = "random_load"


@dataclass(frozen=True, kw_only=True)
class RandomLoad:
    """Greedy requests with random prompts, no two of which share a first block. Named as in ``vllm bench serve``."""

    num_prompts: int = 128
    concurrency: int = 32
    """Requests in flight."""
    input_len: tuple[int, int] = (20, 400)
    """Tokens of a prompt, least and most, both included."""
    output_len: int = 20
    """Tokens of an answer, at most."""
    ignore_eos: bool = False
    """Whether each answer has ``output_len`` tokens, even if the model ends it earlier."""
    seed: int = 0
    """The same seed sends the same prompts."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    def demands(self) -> Sequence[Demand]:
        """What the longest request needs of a server."""
        longest = self.input_len[1]
        source = f"the load (--random-input-len up to {longest}, --random-output-len {self.output_len})"
        return (Demand(source, longest, self.output_len),)

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Raises UsageError if the model's vocabulary is not known."""
        if deployment.vocab_size is None:
            raise UsageError(
                f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, "
                "and the servers do not tokenize (POST /tokenize), so no random prompts can be made for it. Give "
                "--model: a directory with the model's config.json, or a hub name in the local cache. Or give a load "
                "of your own with --dataset-path."
            )
        sizes = [server.block_size for server in deployment.servers if server.block_size is not None]
        return random_load(
            seed=self.seed,
            num_prompts=self.num_prompts,
            concurrency=self.concurrency,
            vocab_size=deployment.vocab_size,
            special_token_ids=deployment.special_token_ids,
            block_size=min(sizes, default=USUAL_BLOCK_SIZE),
            input_len=self.input_len,
            output_len=self.output_len,
            ignore_eos=self.ignore_eos,
            salt=salt,
        )


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
    """``num_prompts`` greedy requests through the proxy.

    ``input_len``: least and most tokens of a prompt, both included; all lengths are equally likely. ``salt``: new for
    each run against a deployment that outlives the run; else a run with the same seed hits the previous run's blocks.

    Each prompt opens with a canary: its number, written in as few tokens as the largest number needs. So no two prompts
    share a first block, no prompt hits blocks of another, and an answer that belongs to another prompt cannot be right
    by chance. The rest of a prompt is random, without special tokens.

    For each output token the leading log-probabilities are asked for (``LOAD_LOGPROBS``): the runner-up's is needed to
    judge a token, and all of the first token's can be compared with the prefill server's.

    Raises UsageError if the canary does not fit into one block or into the shortest prompt.
    """
    ordinary = _ordinary(vocab_size, special_token_ids)
    canaries = _canaries(num_prompts, ordinary)
    _refuse_unless_fits(canaries.shape[1], block_size, input_len)
    sampling = Sampling(max_tokens=output_len, logprobs=LOAD_LOGPROBS, ignore_eos=ignore_eos)
    requests = tuple(
        Request(f"load-{number:05d}", prompt, sampling, route=Route.PROXY, cache_salt=salt)
        for number, prompt in enumerate(_prompts(seed, canaries, ordinary, input_len))
    )
    load = Phase("load", requests, concurrency)
    return Scenario(_NAME, _PURPOSE, (load,))


def _ordinary(vocab_size: int, special_token_ids: Iterable[int]) -> Ids:
    """All token ids that are not special, in order; shape (at most vocab_size,)."""
    ordinary = np.setdiff1d(np.arange(vocab_size), np.fromiter(special_token_ids, dtype=np.int64))
    if len(ordinary) < 2:
        raise UsageError(
            f"Of the vocabulary's {vocab_size} tokens {len(ordinary)} are not special; different prompts need at least "
            "two. Check the model's configuration."
        )
    return ordinary


def _canaries(count: int, ordinary: Ids) -> Ids:
    """The numbers below ``count``, each in digits of base ``len(ordinary)``, as token ids; shape (count, digits)."""
    base, digits = len(ordinary), 1
    while base**digits < count:
        digits += 1
    powers = base ** np.arange(digits - 1, -1, -1)
    canaries: Ids = ordinary[np.arange(count)[:, None] // powers % base]
    return canaries


def _prompts(seed: int, canaries: Ids, ordinary: Ids, input_len: tuple[int, int]) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    least, most = input_len
    lengths = rng.integers(least, most, size=len(canaries), endpoint=True)
    rests = (rng.choice(ordinary, size=length - canaries.shape[1]) for length in lengths)
    # One object for each token id, not for each place: 100,000 prompts of 200 tokens need 160 MB instead of 800.
    one_each = np.arange(ordinary[-1] + 1).astype(object)
    return [(*one_each[canary], *one_each[rest]) for canary, rest in zip(canaries, rests, strict=True)]


def _refuse_unless_fits(digits: int, block_size: int, input_len: tuple[int, int]) -> None:
    least, most = input_len
    if most < least:
        raise UsageError(f"Prompt lengths from {least} to {most} tokens: the first must not exceed the second.")
    if digits > min(block_size, least):
        raise UsageError(
            f"To make all prompts different takes their first {digits} tokens, and a block has {block_size} and the "
            f"shortest prompt has {least} tokens: ask for fewer or longer prompts."
        )
