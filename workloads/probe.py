"""The cache probe: beginnings of served prompts, asked again through the caches that the load has filled.

A block that arrived wrong can leave its own request right (two whole blocks that changed places do: keys are rotated
before they are cached, so attention does not see their order) and still be found, by its hash, by every later prompt
that begins alike. So the probe asks for such prompts: each is *cut* after a whole block and the token after it, which
hits the blocks before the cut and no other. Blocks i and j that changed places are seen by every cut between them, and
two neighbours by one cut alone: only all cuts of a prompt are sure to find it.

Rule 1. A probe computes one token and generates one: a cut costs two engine tokens, whatever its prompt's length.
Rule 2. What is right comes for nothing where the prompt is teacher-forced anyway: that forcing tells the best token
        after every beginning of it. Cuts of other prompts are asked of the prefill server too, whose cache nothing was
        transferred to. Where the two disagree, and nowhere else, the probe itself is forced.
Rule 3. Not all that could be asked needs to be: cuts are drawn from all of them, prompts and places alike, and the
        checker of outputs says how many there were.
Rule 4. Prompts that begin alike share blocks, and a cut of them is asked once.

Asked of D directly a probe reads D's prefix cache, of P P's. To read an offload tier the prefix cache must have lost
the blocks first. It is emptied by ``POST /reset_prefix_cache``, which leaves the tier; where a server has no such
endpoint its tier is not asked, and that is said. (Prompts enough to fill the pool would push
the blocks out too, but out of the tier as well: they are offloaded themselves.)

Not counted: what is cached by then depends on evictions
that nobody predicts.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.history import History, Operation, Outcome
from harness.scenario import Endpoint, Inquiry, InquiryKind, Phase, Request, Route, Sampling, Scenario

PROBE = "probe"
"""How the names of its phases begin."""
ON_PREFILL = 64
"""Cuts asked of the prefill server for its own sake: what it restored from an offload tier may be wrong too."""
TIER_CUTS = 1024
"""Cuts that each tier is asked for at most, the longer ones first: they restore what the shorter ones read."""
TIER = "-tier"
"""How the names of the phases end that read an offload tier."""
_PURPOSE = "Blocks that were stored wrong although every answer was right: poison for the prompts that hit them later."


@dataclass(frozen=True, slots=True)
class Cut:
    """A beginning of a served prompt."""

    source: Operation
    tokens: int
    """Whole blocks of them; the probe has one more."""


def cache_probe(  # noqa: PLR0913 - a workload's parameters are its command line
    history: History,
    *,
    scenario: str,
    block_size: int,
    concurrency: int,
    seed: int = 0,
    most: int | None = None,
    forced: Collection[str] = (),
) -> Scenario | None:
    """At most ``most`` cuts of the served prompts through D's cache, and those that need it through P's.

    ``forced``: request ids of outputs that will be teacher-forced. None where no prompt has a block.
    """
    everything = cuts(history, scenario, block_size)
    order = np.random.default_rng(seed).permutation(len(everything))
    chosen = [everything[index] for index in order[:most]]
    if not chosen:
        return None
    told = [cut for cut in chosen if cut.source.request.request_id in forced]
    on_prefill = [cut for cut in chosen if cut.source.request.request_id not in forced] + told[:ON_PREFILL]
    phases = (_phase(Route.DECODE, chosen, concurrency), _phase(Route.PREFILL, on_prefill, concurrency))
    return Scenario(scenario, _PURPOSE, phases)


def cuts(history: History, scenario: str, block_size: int) -> list[Cut]:
    """Every cut of every served prompt, each once (rule 4)."""
    found: dict[tuple[str | None, tuple[int, ...]], Cut] = {}
    for operation in history.operations(scenario=scenario):
        if _is_served(operation):
            prompt, salt = operation.prompt_token_ids or (), operation.request.cache_salt
            for tokens in range(block_size, len(prompt), block_size):
                found.setdefault((salt, prompt[:tokens]), Cut(operation, tokens))
    return list(found.values())


def _is_served(operation: Operation) -> bool:
    request = operation.request
    of_the_load = request.route is Route.PROXY and request.reference_for is None and request.inquiry is None
    return of_the_load and operation.outcome is Outcome.OK


def _phase(route: Route, chosen: Sequence[Cut], concurrency: int, suffix: str = "") -> Phase:
    name = f"{PROBE}-{route}{suffix}"
    return Phase(name, tuple(_probes(chosen, route, name)), concurrency, counted=False)


def _probes(chosen: Sequence[Cut], route: Route, name: str) -> Iterator[Request]:
    for cut in chosen:
        who = cut.source.request.request_id
        yield replace(
            cut.source.request,
            request_id=f"{who}-{name}-{cut.tokens}",
            prompt=(cut.source.prompt_token_ids or ())[: cut.tokens + 1],
            sampling=Sampling(max_tokens=1, logprobs=2, ignore_eos=True),
            route=route,
            server=None,
            endpoint=Endpoint.COMPLETIONS,
            stream=False,
            continues=None,
            inquiry=Inquiry(InquiryKind.PROBE, who),
        )


# --- the offload tier ---


def tier_reset(scenario: str, servers: Mapping[Route, int]) -> Scenario:
    """Empties the prefix caches of so many servers behind each route, and leaves what is in their offload tiers.

    The deployment is at rest before, since a cache of which a request holds blocks is not emptied.
    """
    requests = tuple(
        Request(
            f"reset-{route}-{number}",
            (),
            route=route,
            server=number,
            stream=False,
            inquiry=Inquiry(InquiryKind.RESET),
        )
        for route, count in servers.items()
        for number in range(count)
    )
    return Scenario(scenario, _PURPOSE, (Phase("reset", requests, counted=False, watched=True),))


def tier_probe(  # noqa: PLR0913 - a workload's parameters are its command line
    history: History,
    *,
    scenario: str,
    block_size: int,
    concurrency: int,
    seed: int = 0,
    most: int = TIER_CUTS,
) -> Scenario | None:
    """The cuts once more, of each route whose prefix caches were all emptied since; None where none was."""
    resets = [o for o in history.operations(scenario=scenario) if o.request.resets]
    emptied = [
        route
        for route in (Route.DECODE, Route.PREFILL)
        if any(o.request.route is route for o in resets)
        and all(o.outcome is Outcome.OK for o in resets if o.request.route is route)
    ]
    everything = cuts(history, scenario, block_size)
    order = np.random.default_rng(seed).permutation(len(everything))
    chosen = sorted((everything[index] for index in order[:most]), key=lambda cut: -cut.tokens)
    if not emptied or not chosen:
        return None
    phases = (replace(_phase(route, chosen, concurrency, TIER), watched=True) for route in emptied)
    return Scenario(scenario, _PURPOSE, tuple(phases))
