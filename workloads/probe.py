"""The cache probe: beginnings of served prompts, asked again through the caches that the load has filled.

A block that arrived wrong can leave its own request right (two whole blocks that changed places do: keys are rotated
before they are cached, so attention does not see their order) and still be found, by its hash, by every later prompt
that begins alike. So the probe asks for such prompts: each one is cut after a whole block, drawn at random,
and the token after it, which hits the blocks before the cut and no other. A cut between two blocks that changed places
reads one without the other.

Asked of D directly it reads D's prefix cache, of P P's. To read the offload tier the prefix cache has to lose the
blocks first: ``evict_with`` prompts of other tokens are asked before, enough to fill the pool.

Not counted: what is cached by then depends on evictions that nobody predicts. Its answers are verified as the load's
are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.history import History, Operation, Outcome
from harness.scenario import Endpoint, Phase, Request, Route, Sampling, Scenario

PROBE = "probe"
"""How the names of its phases begin."""
_OUTPUT = 4
"""Tokens of an answer: the first already depends on every block."""
_PROBES = 64
_PURPOSE = "Blocks that were stored wrong although every answer was right: poison for the prompts that hit them later."


def cache_probe(  # noqa: PLR0913 - a workload's parameters are its command line
    history: History,
    *,
    scenario: str,
    block_size: int,
    concurrency: int,
    seed: int = 0,
    most: int = _PROBES,
    routes: Sequence[Route] = (Route.DECODE, Route.PREFILL),
    evict_with: Sequence[tuple[int, ...]] = (),
) -> Scenario | None:
    """At most ``most`` prefixes of the served prompts through each route's caches; None where no prompt has a block.

    ``evict_with``: prompts that push the probed blocks out of the prefix caches, so that the offload tier is read; then
    the prefixes are asked a second time.
    """
    rng = np.random.default_rng(seed)
    probed = [o for o in history.operations(scenario=scenario) if _leaves_blocks(o, block_size)]
    probed = [probed[index] for index in rng.permutation(len(probed))[:most]]
    if not probed:
        return None
    cuts = [int(rng.integers(1, _blocks(operation, block_size), endpoint=True)) * block_size for operation in probed]
    phases = list(_phases("", routes, probed, cuts, concurrency))
    if evict_with:
        phases += [_churn(route, evict_with, concurrency) for route in routes]
        phases += _phases("-tier", routes, probed, cuts, concurrency)
    return Scenario(scenario, _PURPOSE, tuple(phases))


def _leaves_blocks(operation: Operation, block_size: int) -> bool:
    request = operation.request
    served = request.route is Route.PROXY and request.reference_for is None and operation.outcome is Outcome.OK
    return served and _blocks(operation, block_size) > 0


def _blocks(operation: Operation, block_size: int) -> int:
    """Whole blocks that a prompt which goes on can hit."""
    return (len(operation.prompt_token_ids or ()) - 1) // block_size


def _phases(
    suffix: str, routes: Sequence[Route], probed: Sequence[Operation], cuts: Sequence[int], concurrency: int
) -> Iterator[Phase]:
    for route in routes:
        name = f"{PROBE}-{route}{suffix}"
        requests = tuple(_probe(o, cut, route, name) for o, cut in zip(probed, cuts, strict=True))
        yield Phase(name, requests, concurrency, counted=False)


def _probe(operation: Operation, cut: int, route: Route, name: str) -> Request:
    prompt = (operation.prompt_token_ids or ())[: cut + 1]
    return replace(
        operation.request,
        request_id=f"{operation.request.request_id}-{name}",
        prompt=prompt,
        sampling=Sampling(max_tokens=_OUTPUT, logprobs=2, ignore_eos=True),
        route=route,
        server=None,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
    )


def _churn(route: Route, prompts: Sequence[tuple[int, ...]], concurrency: int) -> Phase:
    requests = (
        Request(f"evict-{route}-{number}", prompt, Sampling(max_tokens=1), route=route, stream=False)
        for number, prompt in enumerate(prompts)
    )
    return Phase(f"evict-{route}", tuple(requests), concurrency, counted=False)
