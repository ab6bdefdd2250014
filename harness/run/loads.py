"""The loads that a run can send: random prompts, or requests from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import UsageError
from harness.facts import Deployment
from harness.loads.dataset import NAME as DATASET
from harness.loads.dataset import Line, dataset_load, read_lines
from harness.loads.random_load import random_load
from harness.preflight.demand import Demand
from harness.scenario import Scenario

USUAL_BLOCK_SIZE = 16
"""Tokens; vLLM's default, for servers that do not report their block size."""


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
        return "random_load"

    def demands(self) -> Sequence[Demand]:
        """What the longest request needs of a server."""
        longest = self.input_len[1]
        source = f"the load (--random-input-len up to {longest}, --random-output-len {self.output_len})"
        return (Demand(source, longest, self.output_len),)

    def scenario(self, deployment: Deployment, salt: str) -> Scenario:
        """The load for this deployment; ``salt``: new for each run.

        Raises UsageError if the model's vocabulary is not known.
        """
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


@dataclass(frozen=True, kw_only=True)
class DatasetLoad:
    """Requests from a JSONL file (:mod:`harness.loads.dataset` describes a line). The file is read at its first use."""

    path: Path
    num_prompts: int | None = None
    """Lines taken from the beginning of the file; None: all."""
    output_len: int | None = None
    """Tokens of an answer, at most, for lines that do not say."""
    concurrency: int = 32
    """Requests in flight."""
    seed: int = 0
    """Decides which outputs and prefixes are verified."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return DATASET

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The file's requests. Raises UsageError."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(f"--dataset-path {self.path} cannot be read: {why}. Name a JSONL file.") from None
        return read_lines(text, str(self.path), output_len=self.output_len)[: self.num_prompts]

    def demands(self) -> Sequence[Demand]:
        """What each request needs of a server. Raises UsageError if the file cannot be read."""
        return tuple(_demand(line, f"{self.path}, line {line.number}") for line in self.lines)

    def scenario(self, _deployment: Deployment, salt: str) -> Scenario:
        """The load; ``salt``: new for each run."""
        return dataset_load(self.lines, concurrency=self.concurrency, salt=salt)


Load = RandomLoad | DatasetLoad


def _demand(line: Line, source: str) -> Demand:
    tokens = [token for token in line.request.prompt if isinstance(token, int)]
    return Demand(source, len(tokens) or None, line.request.sampling.max_tokens, max(tokens, default=None))
