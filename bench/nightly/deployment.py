"""The deployment that the jobs of a night share."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.nightly.options import attaches
from bench.nightly.process import Started, exit_code, how_it_ended
from harness.errors import DeployError, ExitCode, HarnessError, UsageError

_NOTICED = 2.0
"""Seconds within which ``serve`` notices that one of its servers died."""
_OTHER_FLAGS = ("--header", "--kv-cache-dtype", "--served-model-name")
"""Flags with a value that apply to attached servers as well."""


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment that loads are sent to."""

    flags: tuple[str, ...]
    """Flags that attach to it."""
    held: Started | None = None
    """The ``serve`` process that keeps it running during the night; None: it was running before."""

    def died(self, *, soon: bool = False) -> bool:
        """Whether ``serve`` has ended by itself; ``soon``: or ends within the time in which it notices a death."""
        return self.held is not None and self.held.ended_within(_NOTICED if soon else 0.0)


@contextmanager
def deployment(words: Sequence[str], directory: Path) -> Iterator[Target]:
    """The deployment that the words attach to, or one that is launched and ended.

    Raises DeployError or UsageError if it does not come up.
    """
    if attaches(words):
        yield Target(tuple(words))
        return
    directory.mkdir(parents=True, exist_ok=True)
    held = Started.start(
        "serve", "--result-dir", str(directory), *words, output=directory / "output.txt", keep_stdout=True
    )
    try:
        # Its offload tiers may be probed: nobody else uses it.
        yield Target((*_attach(_facts(held), words), "--probe-tiers"), held)
    finally:
        held.end()


def _facts(held: Started) -> Mapping[str, Any]:
    line = held.process.stdout.readline() if held.process.stdout else ""
    if line:
        facts: Mapping[str, Any] = json.loads(line)
        return facts
    # It must not end by itself, so that even status 0 is a failure.
    status = held.status()
    why = held.error() or (f"status {status}" if status in set(ExitCode) else f"it {how_it_ended(status)}")
    kind: type[HarnessError] = UsageError if exit_code(status) is ExitCode.USAGE else DeployError
    raise kind(f"the deployment did not come up: {why}")


def _attach(facts: Mapping[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    flags = ["--base-url", facts["base_url"]] if facts["base_url"] else []
    flags += [word for url in facts["prefill_urls"] for word in ("--prefill-url", url)]
    flags += [word for url in facts["decode_urls"] for word in ("--decode-url", url)]
    return (*flags, *_kept(words))


def _kept(words: Sequence[str]) -> Iterator[str]:
    """The words that hold for every run, whoever launched the servers."""
    for number, word in enumerate(words):
        name, equals, _ = word.partition("=")
        if name in _OTHER_FLAGS:
            yield from (word,) if equals else words[number : number + 2]
