"""The history of a run that nobody ran: prompts with common beginnings, caches that evict, verified outputs.

Requests overlap and go through caches that evict, so that every part of judging has work. The counters come from
:mod:`bench.made_caches`, log-probabilities from a generator of random numbers.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.made_answers import Answers
from bench.made_caches import BLOCK, Caches
from harness.facts import Connector, Deployment, KVGeometry, Role, Server
from harness.history import ClientHealth, Decoding, Entry, History, RunEnded, RunStarted, Sample, Scraped, Sent
from harness.observe.counters import GAUGES, SOURCES
from harness.scenario import LOAD_LOGPROBS, Request, Sampling
from harness.sim.prefix_cache import extend_hashes, root_hash

_GEOMETRY = KVGeometry(layers=4, kv_heads=2, head_size=8, head_size_v=8, dtype_bytes=2)
_NEW, _REPEATED = 0.65, 0.1
"""Shares of prompts that are new, and that were sent before. The others begin like others."""
_BEGINNINGS, _BEGINNING = 32, 4 * BLOCK
_RECENT = 500
"""A repeated prompt is one of the last so many."""
_URLS = {Role.PREFILL: "http://prefill", Role.DECODE: "http://decode"}


@dataclass(frozen=True)
class Settings:
    """What kind of run is made."""

    requests: int
    concurrency: int = 64
    phase: int = 1000
    """Requests per counted phase."""
    prompt: int = 160
    """Tokens of the longest prompts that begin like no other; the shortest have two blocks."""
    output: int = 16
    """Tokens of each answer."""
    blocks: int = 2048
    chunks: int = 4096
    verified: float = 0.05
    """Share of the outputs that are teacher-forced, and of those whose blocks are probed."""
    wrong: int = 8
    """Outputs that are wrong."""
    seed: int = 0


def deployment_of(settings: Settings) -> Deployment:
    """The facts of the pair: prefill and decode, each with NIXL and an offload tier."""
    servers = [
        Server(f"{role}-0", role, url, BLOCK, settings.blocks, prefix_caching=True, version="0.32.0", ranks=1)
        for role, url in _URLS.items()
    ]
    facts = Deployment(
        tuple(servers), "http://proxy", "made", vocab_size=4096, geometry=_GEOMETRY, launched=True, own_proxy=True
    )
    return facts.with_servers(
        connectors=(Connector.NIXL, Connector.OFFLOADING),
        offload_block_size=BLOCK,
        offload_blocks=settings.chunks,
        offload_prompt_only=True,
        max_num_batched_tokens=8192,
    )


def history_of(settings: Settings) -> History:
    """The history of the run."""
    return History(tuple(entries_of(settings)))


def entries_of(settings: Settings) -> Iterator[Entry]:
    """The same, entry by entry; one phase at a time is in memory."""
    made = _Making(settings)
    yield RunStarted(0.0, (), settings.seed, "made", None, ("load",))
    yield Decoding(0.0, (2,))
    for start in range(0, settings.requests, settings.phase):
        yield from made.phase(f"load-{start}", min(settings.phase, settings.requests - start))
    end = made.now + 1.0
    for entry in made.answers.verification(made.now + 1.0):
        yield entry
        end = max(end, entry.at + 1.0)
    yield ClientHealth(end, 0.0, 0.0, 0.0, 0.1)
    yield RunEnded(end)


@dataclass
class _Making:
    settings: Settings
    now: float = 1.0
    number: int = 0
    rng: np.random.Generator = field(init=False)
    caches: dict[Role, Caches] = field(init=False)
    answers: Answers = field(init=False)
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    beginnings: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.settings.seed)
        self.caches = {role: Caches(self.settings.blocks, self.settings.chunks) for role in Role}
        self.answers = Answers(self.rng, self.settings.output, self.settings.verified, self.settings.wrong)
        self.beginnings = [self._tokens(_BEGINNING) for _ in range(_BEGINNINGS)]

    def phase(self, name: str, count: int) -> Iterator[Entry]:
        """A counted phase: readings around ``count`` requests."""
        yield from self._readings(name, "before")
        served: list[Entry] = []
        flying: list[tuple[float, int, str, Any]] = []
        for _ in range(count):
            if len([None for one in flying if one[2] == "end"]) >= self.settings.concurrency:
                self._land(flying, served, until="end")
            self._send(name, flying, served)
        while flying:
            self._land(flying, served)
        yield from sorted(served, key=lambda entry: entry.at)
        self.now += 2.0
        yield from self._readings(name, "after")

    def _send(self, phase: str, flying: list[tuple[float, int, str, Any]], served: list[Entry]) -> None:
        self.now += float(self.rng.exponential(1e-3))
        prompt, number = self._prompt(), self.number
        sampling = Sampling(self.settings.output, logprobs=LOAD_LOGPROBS)
        request = Request(f"load-{number:07d}", prompt, sampling, cache_salt="run")
        hashes: list[int] = []
        extend_hashes(hashes, prompt, BLOCK, root_hash("run"))
        self.number += 1
        sent = Sent(self.now, request, "load", phase, self.now)
        served.append(sent)
        self.caches[Role.PREFILL].admit(number, hashes, len(prompt), 1, pulls=False)
        prefilled = self.now + float(self.rng.uniform(0.01, 0.04))
        heapq.heappush(flying, (prefilled, number, "pull", (hashes, len(prompt))))
        ended = prefilled + float(self.rng.uniform(0.1, 0.4))
        heapq.heappush(flying, (ended, number, "end", sent))

    def _land(self, flying: list[tuple[float, int, str, Any]], served: list[Entry], until: str = "") -> None:
        """What happens next; with ``until``, everything up to the next event of that kind."""
        while flying:
            at, number, kind, what = heapq.heappop(flying)
            self.now = max(self.now, at)
            if kind == "pull":
                hashes, tokens = what
                self.caches[Role.DECODE].admit(number, hashes, tokens, self.settings.output, pulls=True)
            else:
                served.append(self.answers.end(what, self.now, _URLS))
                for role in Role:
                    self.caches[role].release(number)
            if until in ("", kind):
                return

    def _prompt(self) -> tuple[int, ...]:
        drawn, length = self.rng.random(), int(self.rng.integers(2 * BLOCK, self.settings.prompt))
        if drawn < _NEW or len(self.prompts) < 2:
            prompt = self._tokens(length)
        elif drawn < _NEW + _REPEATED:
            prompt = self.prompts[int(self.rng.integers(len(self.prompts)))]
        else:
            prompt = self.beginnings[int(self.rng.integers(_BEGINNINGS))] + self._tokens(length // 2)
        self.prompts = [*self.prompts[-_RECENT:], prompt]
        return prompt

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.rng.integers(300, 4000, count).tolist())

    def _readings(self, phase: str, label: str) -> Iterator[Scraped]:
        for role, caches in self.caches.items():
            samples = tuple(_samples(caches))
            yield Scraped(self.now, f"{role}-0", label, "load", phase, samples)


def _samples(caches: Caches) -> Sequence[Sample]:
    legacy = {f"{name}_legacy": caches.counted[name] for name in ("offload_load_bytes", "offload_store_bytes")}
    values = {**caches.counted, **legacy, "process_start": 1.0}
    return [
        Sample(source.sample, {"engine": "0", **dict(source.labels)}, float(values.get(name, 0)))
        for name, source in SOURCES.items()
        if name in GAUGES or name != "recomputed"
    ]
