"""Histories written by hand for the oracle: each call adds one request, or overlapping ones, after all earlier ones.

The deployment is that of :mod:`counted_run`, with blocks of 64 tokens.
"""

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import counted_run as run

from harness.facts import Connector, Deployment, Server
from harness.history import Choice, Ended, Operation, Outcome, Sent, Usage
from harness.oracle import PREDICTED, ServerExpectation, predict
from harness.scenario import Request, Route, Sampling
from harness.verdict import Bounds

NIXL, OFFLOADING = Connector.NIXL, Connector.OFFLOADING
B = 64
BLOCK = run.BLOCK


def deployed(*connectors: Connector, blocks: int = 100, **fields: Any) -> Deployment:
    """The pair with these connectors, a pool of ``blocks`` usable blocks, and an offload tier that never evicts."""
    servers = fields.pop("servers", run.DEPLOYMENT.with_servers(num_blocks=blocks + 1).servers)
    own: dict[str, Any] = {"connectors": connectors, "offload_blocks": 1000}
    own |= {name: fields.pop(name) for name in [*fields] if name in Server.__dataclass_fields__}
    return replace(run.DEPLOYMENT, servers=servers, **fields).with_servers(**own)


def prompt(length: int, start: int = 0) -> tuple[int, ...]:
    """Consecutive token ids: prompts with the same start share a prefix."""
    return tuple(range(start, start + length))


@dataclass
class Script:
    """A history that grows request by request."""

    deployment: Deployment
    operations: list[Operation] = field(default_factory=list)
    now: float = 0.0
    numbers: "count[int]" = field(default_factory=count)

    def ask(self, tokens: tuple[int, ...], phase: str = "load", **fields: Any) -> Operation:
        """One request, after all earlier ones have ended."""
        (operation,) = self.together([tokens], phase, **fields)
        return operation

    def together(self, prompts: list[tuple[int, ...]], phase: str = "load", **fields: Any) -> list[Operation]:
        """Overlapping requests, after all earlier ones have ended."""
        self.now += 10
        asked = [self._operation(tokens, phase, **fields) for tokens in prompts]
        self.operations += asked
        return asked

    def _operation(
        self,
        tokens: tuple[int, ...],
        phase: str,
        *,
        output: int = 2,
        said: tuple[tuple[int, ...], ...] | None = None,
        sampling: Sampling | None = None,
        outcome: Outcome = Outcome.OK,
        **fields: Any,
    ) -> Operation:
        request = Request(f"r{next(self.numbers)}", tokens, sampling or Sampling(max_tokens=output), **fields)
        choices = tuple(Choice(one) for one in said or (tuple(range(9000, 9000 + output)),))
        usage = Usage(len(tokens), sum(len(one.token_ids) for one in choices))
        ended = Ended(self.now + 1, request.request_id, outcome, status=200, choices=choices, usage=usage)
        return Operation(Sent(self.now, request, "script", phase, self.now), ended)

    def expect(self, phase: str = "load") -> dict[str, ServerExpectation]:
        """The phase's expectations, by server."""
        return dict(predict(self.deployment, self.operations)[("script", phase)])


def row(expectation: ServerExpectation) -> dict[str, int]:
    """A row of the table: tokens, and blocks instead of bytes. Every counter must be exact."""
    values = {
        name: exactly(expectation, name) for name in PREDICTED if name not in ("generation_tokens", "nixl_transfers")
    }
    sources = ("local_compute", "local_cache_hit", "external_kv_transfer")
    assert sum(values[name] for name in sources) == values["prompt_tokens"]
    return {name: value // BLOCK if name.endswith("_bytes") else value for name, value in values.items() if value}


def exactly(expectation: ServerExpectation, counter: str) -> int:
    """The one right value of a counter."""
    bounds = expectation.of(counter)
    assert bounds is not None, expectation.why(counter)
    assert bounds.exact, f"{counter} is {bounds}: {expectation.why(counter)}"
    return bounds.low


def bounds(expectation: ServerExpectation, counter: str) -> Bounds:
    """A counter's bounds."""
    found = expectation.of(counter)
    assert found is not None
    return found


DIRECT_D, DIRECT_P = Route.DECODE, Route.PREFILL
