"""Runs scenarios on the simulated pair without sockets or a clock, for tests that judge the histories."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from sim_transit import through_together

from harness.history import Decoding, Ended, Entry, History, RunEnded, Sent
from harness.load.answers.answer import Answer
from harness.load.answers.outcome import Reply, conclude
from harness.load.body import encode
from harness.observe.scrape import Occasion
from harness.scenario import Endpoint, Phase, Purpose, Request, Route, Sampling, Scenario
from harness.selftest.readings import read_pair
from harness.selftest.world import World
from harness.sim import SimPair
from harness.verify.asking import VerifyOptions, VerifyPolicy, verified


def load(
    count: int,
    *,
    seed: int = 0,
    least: int = 20,
    most: int = 100,
    output: int = 20,
    at_once: int = 32,
    logprobs: int = 2,
) -> Scenario:
    """Random prompts through the pair."""
    rng = np.random.default_rng(seed)
    requests = tuple(
        Request(
            f"load-{number:05d}",
            tuple(int(token) for token in rng.integers(300, 4000, rng.integers(least, most, endpoint=True))),
            Sampling(max_tokens=output, logprobs=logprobs),
            cache_salt="run",
        )
        for number in range(count)
    )
    return Scenario("load", "", (Phase("load", requests, at_once),))


class SimRun:
    """A pair and the history of its requests.

    ``hands_on``: whether the proxy hands on what P says of first tokens. ``tick``: seconds for each entry.
    """

    def __init__(self, pair: SimPair, *, hands_on: bool = False, tick: float = 1e-3) -> None:
        self.pair, self._tick = pair, tick
        self._first: dict[str, str | None] | None = {} if hands_on else None
        self.entries: list[Entry] = [Decoding(0.0, pair.config.special_token_ids)]
        self.reset_status = 200

    @property
    def history(self) -> History:
        return History((*self.entries, RunEnded(self.pair.now())))

    def run(self, scenario: Scenario | None) -> None:
        for phase in scenario.phases if scenario else ():
            self._read(scenario, phase, "before")
            for start in range(0, len(phase.requests), phase.concurrency):
                self._batch(scenario.name, phase.name, phase.requests[start : start + phase.concurrency])
            self._read(scenario, phase, "after")

    def _read(self, scenario: Scenario | None, phase: Phase, when: str) -> None:
        """Read the counters around a watched phase, which is not judged."""
        if scenario is not None and phase.watched:
            occasion = Occasion(scenario.name, phase.name, f"watched-{when}")
            world = World(self.pair, time=float(len(self.entries)))
            self.entries += read_pair(self.pair, world, occasion).values()

    def verify(self, policy: str = "all", *, concurrency: int = 32, seed: int = 0) -> History:
        facts = self.pair.facts({server.name: f"sim://{server.name}" for server in self.pair.servers}, "sim://proxy")
        how = VerifyOptions(
            policy=VerifyPolicy.parse(policy), salt="verify", seed=seed, concurrency=concurrency, probe_tiers=True
        )
        for scenario in verified([], facts, lambda: self.history, how):
            # A salt test comes before the load, and here the load has run already.
            if scenario.phases[0].requests[0].purpose is not Purpose.SALT_TEST:
                self.run(scenario)
        return self.history

    def _batch(self, scenario: str, phase: str, requests: tuple[Request, ...]) -> None:
        at = len(self.entries) * self._tick
        self.entries += [Sent(at, request, scenario, phase, at) for request in requests]
        for route in Route:
            self.entries += self._ends([request for request in requests if request.route is route], route, at)

    def _ends(self, requests: list[Request], route: Route, at: float) -> Iterator[Ended]:
        bodies = {request.request_id: _body(request) for request in requests}
        if requests and requests[0].purpose is Purpose.RESET:
            yield from (self._reset(request, at) for request in requests)
            return
        answers = self._through(bodies) if route is Route.PROXY else self._alone(bodies, route)
        for request in requests:
            status, body = answers.get(request.request_id, (502, {}))
            answer, reply = Answer(), Reply(status=status, body="" if status == 200 else str(body))
            reply.prefill_first = (self._first or {}).get(request.request_id)
            if status == 200:
                answer.body(json.dumps(body).encode(), at + 0.5 * self._tick)
            yield conclude(request, reply, answer, at + 0.5 * self._tick)

    def _reset(self, request: Request, at: float) -> Ended:
        server = self.pair.decode if request.route is Route.DECODE else self.pair.prefill
        done = self.reset_status == 200 and server.engine.reset_prefix_cache()
        return conclude(
            request,
            Reply(status=self.reset_status, body=json.dumps({"success": done})),
            Answer(),
            at + 0.5 * self._tick,
        )

    def _through(self, bodies: dict[str, Any]) -> dict[str, tuple[int, Any]]:
        return through_together(self.pair, bodies, first=self._first) if bodies else {}

    def _alone(self, bodies: dict[str, Any], route: Route) -> dict[str, tuple[int, Any]]:
        server = self.pair.decode if route is Route.DECODE else self.pair.prefill
        jobs = {name: server.submit(Endpoint.COMPLETIONS, body, name) for name, body in bodies.items()}
        server.settle()
        return {name: server.reply(job) for name, job in jobs.items()}


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(replace(request, stream=False), model="sim"))
    return body
