"""Random sequences of requests with common prefixes, and a simulated pair that serves them."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Deployment, Role
from harness.history import Choice, Ended, Operation, Outcome, Sent, Usage
from harness.load.body import encode
from harness.scenario import Phase, Request, Route, Sampling
from harness.sim import SimConfig, SimPair, SimServer
from harness.sim.answers import Job
from harness.sim.transit import prefill_body

TICK = 0.1
"""Seconds between rounds of steps: short enough for the delays that the oracle allows."""


@dataclass
class Author:
    """Writes requests from a seed: new prompts, repeated ones, prefixes of old ones, and continuations."""

    seed: int
    block_size: int
    vocabulary: range
    longest: int = 8
    """Longest prompt, in blocks."""
    salts: tuple[str | None, ...] = (None,)
    plain: bool = False
    """Whether n and prompt_logprobs are left out."""
    choices: bool = True
    """Whether n = 2 occurs."""
    rng: random.Random = field(init=False)
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - reproducible, not secret

    def phase(self, name: str, count: int, concurrency: int) -> Phase:
        """A phase of ``count`` requests."""
        return Phase(name, tuple(self.request(name) for _ in range(count)), concurrency)

    def request(self, phase: str) -> Request:
        """One request."""
        self.written += 1
        prompt = self._prompt()
        self.prompts.append(prompt)
        return Request(
            f"{phase}-{self.written}",
            prompt,
            self._sampling(),
            route=self.rng.choices((Route.PROXY, Route.PREFILL, Route.DECODE), (6, 1, 1))[0],
            server=0,
            stream=False,
            cache_salt=self.rng.choice(self.salts),
        )

    def _sampling(self) -> Sampling:
        special = 1.0 if self.plain else self.rng.random()
        twice = self.choices and 0.08 <= special < 0.14
        return Sampling(
            max_tokens=self.rng.choice((1, 2, 5, self.block_size + 3)),
            ignore_eos=True,
            # vLLM gives greedy sampling one choice.
            temperature=1.0 if twice else 0.0,
            prompt_logprobs=0 if special < 0.08 else None,
            n=2 if twice else None,
        )

    def _prompt(self) -> tuple[int, ...]:
        kind = self.rng.random()
        if not self.prompts or kind < 0.35:
            return self._tokens(self._length())
        old = self.rng.choice(self.prompts[-30:])
        if kind < 0.6:
            return old
        kept = self.rng.choice((len(old), self._length(), self.block_size * self.rng.randint(1, self.longest)))
        return (*old[:kept], *self._tokens(self.rng.randint(1, 2 * self.block_size)))[: self.longest * self.block_size]

    def _length(self) -> int:
        whole = self.block_size * self.rng.randint(1, self.longest)
        return max(1, self.rng.choice((whole, whole - 1, whole + 1, 1, self.rng.randint(1, whole))))

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.rng.choices(self.vocabulary, k=count))


@dataclass
class SimulatedRun:
    """Serves phases with the simulated pair; in each round the servers make one step or none, in random order."""

    config: SimConfig
    seed: int
    now: float = 0.0
    pair: SimPair = field(init=False)
    rng: random.Random = field(init=False)
    idle: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pair = SimPair(self.config, lambda: self.now)
        self.rng = random.Random(self.seed)  # noqa: S311 - reproducible, not secret

    @property
    def deployment(self) -> Deployment:
        """The pair's facts."""
        urls = {server.name: f"http://{server.name}" for server in self.pair.servers}
        return self.pair.facts(urls, "http://proxy")

    def serve(self, phase: Phase) -> tuple[list[Operation], dict[str, dict[str, float]]]:
        """The phase's operations, and the growth of each server's counters."""
        before = self._read()
        operations = list(self._operations(phase))
        self.now += 1.0
        self.pair.settle()
        after = self._read()
        return operations, {
            name: {counter: value - before[name][counter] for counter, value in values.items()}
            for name, values in after.items()
        }

    def _operations(self, phase: Phase) -> Iterator[Operation]:
        waiting, flying = list(phase.requests), list[_Flight]()
        while waiting or flying:
            while waiting and len(flying) < phase.concurrency:
                flying.append(self._start(waiting.pop(0), phase.name))
            self._step()
            for flight in [flight for flight in flying if self._advanced(flight)]:
                flying.remove(flight)
                yield flight.ended(self.now)
            self.now += TICK

    def _start(self, request: Request, phase: str) -> "_Flight":
        # No two events have the same time.
        self.now += TICK / 100
        sent = Sent(self.now, request, "random", phase, self.now)
        body = json.loads(encode(request, model=self.pair.config.model))
        if request.route is Route.PROXY:
            server, asked = self.rng.choice(self.pair.of(Role.PREFILL)), prefill_body(body)
        else:
            role = Role.PREFILL if request.route is Route.PREFILL else Role.DECODE
            server, asked = self.pair.of(role)[0], body
        job = server.submit(request.endpoint, asked, request.request_id)
        return _Flight(sent, body, job, server, on_prefill=request.route is Route.PROXY)

    def _advanced(self, flight: "_Flight") -> bool:
        """Whether the request has ended; moves it on from prefill to decode."""
        if not flight.job.finished:
            return False
        if not flight.on_prefill:
            return True
        status, answer = flight.server.reply(flight.job)
        assert status == 200, answer
        flight.prefill_server, flight.server = flight.server, self.rng.choice(self.pair.of(Role.DECODE))
        body = flight.body | {"kv_transfer_params": answer["kv_transfer_params"]}
        flight.job = flight.server.submit(flight.sent.request.endpoint, body, flight.sent.request.request_id)
        flight.on_prefill = False
        return False

    def _step(self) -> None:
        servers = self.rng.sample(self.pair.servers, len(self.pair.servers))
        for server in servers:
            rests = server.name not in self.idle and self.rng.random() < 0.3
            (self.idle.add if rests else self.idle.discard)(server.name)
            if not rests:
                server.step()

    def _read(self) -> dict[str, dict[str, float]]:
        return {server.name: _counters(server) for server in self.pair.servers}


@dataclass
class _Flight:
    sent: Sent
    body: dict[str, Any]
    job: Job
    server: SimServer
    on_prefill: bool
    prefill_server: SimServer | None = None

    def ended(self, at: float) -> Operation:
        status, answer = self.server.reply(self.job)
        assert status == 200, answer
        usage = Usage(answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
        choices = tuple(Choice(tuple(one["token_ids"])) for one in answer["choices"])
        names = [f"http://{server.name}" if server else None for server in (self.prefill_server, self.server)]
        ended = Ended(
            at,
            self.sent.request.request_id,
            Outcome.OK,
            status=status,
            choices=choices,
            usage=usage,
            prefill_server=names[0],
            decode_server=names[1],
        )
        return Operation(self.sent, ended)


def _counters(server: SimServer) -> dict[str, float]:
    stats = server.engine.stats
    plain = (
        "prompt_tokens local_compute local_cache_hit external_kv_transfer generation_tokens prefix_queries prefix_hits "
        "external_queries external_hits preemptions allocation_failures"
    )
    return {name: getattr(stats, name) for name in plain.split()} | {
        "nixl_bytes": stats.nixl_bytes.total,
        "nixl_transfers": stats.nixl_bytes.count,
        "offload_load_bytes": stats.load_sizes.total,
        "offload_store_bytes": stats.store_sizes.total,
    }
