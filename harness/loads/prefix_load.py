"""The load of repeated prefixes: groups of prompts that begin alike, as in ``vllm bench serve``. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.loads.timing import TimedLoad
from harness.loads.token_ids import canaries, ordinary_of
from harness.scenario import LOAD_LOGPROBS, Request, Sampling, Scenario

_NAME = "prefix_repetition"
_PURPOSE = (
    "Wrong blocks of a prefix cache under load: prompts that begin alike share cached blocks, and every answer must be "
    "the same as if it shared none."
)


@dataclass(frozen=True, kw_only=True)
class PrefixRepetitionLoad(TimedLoad):
    """Greedy requests whose prompts are one of a few random prefixes and a random suffix of their own."""

    num_prompts: int = 128
    prefix_len: int = 256
    """Tokens of each prefix."""
    suffix_len: int = 256
    """Tokens after the prefix."""
    num_prefixes: int = 10
    """Every prefix has the same number of prompts, or one more. Their order is random."""
    output_len: int = 128
    """Tokens of an answer, at most."""
    ignore_eos: bool = False
    """Whether each answer has ``output_len`` tokens, even if the model ends it earlier."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return _NAME

    def demands(self) -> Sequence[Demand]:
        """What the longest request needs of a server."""
        source = f"the load (a prefix of {self.prefix_len} and a suffix of {self.suffix_len} tokens)"
        one = self.prefix_len + self.suffix_len
        return (Demand(source, self.turns * one + (self.turns - 1) * self.output_len, self.output_len),)

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run. Raises UsageError if the prompts cannot be made."""
        sampling = Sampling(max_tokens=self.output_len, logprobs=LOAD_LOGPROBS, ignore_eos=self.ignore_eos)
        requests = (
            Request(f"load-{number:05d}", prompt, sampling, cache_salt=salt)
            for number, prompt in enumerate(self._prompts(deployment))
        )
        return Scenario(_NAME, _PURPOSE, (self.phase("load", self.in_sessions(requests)),))

    def _prompts(self, deployment: Deployment) -> Iterator[tuple[int, ...]]:
        ids = ordinary_of(deployment)
        opening = canaries(self.num_prompts, ids)
        if opening.shape[1] > self.suffix_len:
            raise UsageError(
                f"To make {self.num_prompts:,} prompts different takes {opening.shape[1]} tokens, but a suffix has "
                f"{self.suffix_len}: give a larger --prefix-repetition-suffix-len."
            )
        rng = np.random.default_rng(self.seed)
        prefixes = rng.choice(ids, size=(self.num_prefixes, self.prefix_len)).tolist()
        for number in rng.permutation(self.num_prompts).tolist():
            rest = rng.choice(ids, size=self.suffix_len - opening.shape[1])
            yield (*prefixes[number % self.num_prefixes], *opening[number].tolist(), *rest.tolist())

    def words(self) -> Iterator[str]:
        """The flags of the command line that ask for this load."""
        yield from ("--dataset-name", _NAME, *self.timing_words(), "--num-prompts", str(self.num_prompts))
        yield from ("--prefix-repetition-prefix-len", str(self.prefix_len))
        yield from ("--prefix-repetition-suffix-len", str(self.suffix_len))
        yield from ("--prefix-repetition-num-prefixes", str(self.num_prefixes))
        yield from ("--prefix-repetition-output-len", str(self.output_len))
        yield from ["--ignore-eos"] if self.ignore_eos else []
