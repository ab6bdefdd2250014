"""How the outputs of one run are verified."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.facts import Deployment
from harness.history import History, Operation
from harness.memo import once
from harness.scenario import Phase, Request, Route
from harness.verify.asking.kept import kept_by_prefill
from harness.verify.asking.ledger import Ledger, Rates
from harness.verify.asking.outputs import (
    in_turn,
    most_in_flight,
    needs_reference,
    through_proxy,
    to_verify,
    tokens_of,
    verifiable,
)
from harness.verify.asking.policy import Sizes, VerifyPolicy, sizes
from harness.verify.asking.requests import teacher_forcing
from harness.verify.judging.cost import expected_cached, load_cost, prompt_lengths, verification_cost
from harness.verify.judging.first_token import beyond_noise
from harness.verify.judging.hits import largest_block_size
from harness.verify.judging.load_part import load_of
from harness.verify.judging.witness import witnessed

_MOST_AT_ONCE = 32
"""The most requests in flight if the concurrency follows from the load, which may exceed a batch. On two
CPU cores, 16, 32, 64 and 128 forcings of 40 to 420 tokens in flight were equally quick (9,000, 7,200, 7,500 and 8,200
tokens/s)."""
_USUAL_BLOCK = 16
_UNLIMITED = 1 << 20
"""Tokens of a context with an unknown limit."""

Phases = tuple[Phase, ...]
"""The phases that one step of verification sends; empty if there is nothing to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """The caller's choices."""

    policy: VerifyPolicy
    salt: str
    """The beginning of every ``cache_salt``; new for each run."""
    seed: int = 0
    """Seed of the random choice of outputs that are verified and of prefixes that are probed."""
    concurrency: int | None = None
    """Requests in flight at once; None: as many as the load had, 32 at most."""
    reference: bool = False
    """Whether a server outside the deployment does the teacher forcing (``Route.REFERENCE``)."""
    probe_tiers: bool = False
    """Whether prefix caches may be emptied, to probe the offload tiers behind them. They must not be emptied before
    further workloads, whose counters are predicted from the contents of the caches."""
    salt_on_the_way: bool = True
    """Whether it is tested before the load that the proxy passes ``cache_salt`` on. If not, the load's requests are the
    first that transfer KV."""
    investigate: bool = True
    """Whether the owners of wrong outputs' KV are searched for, and wrong outputs are asked for again."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The options, applied to a deployment."""

    deployment: Deployment
    how: VerifyOptions
    now: Callable[[], float] | None = None
    """The run's clock; None: no time passes after the last answer."""

    @property
    def forcing_route(self) -> Route:
        """The route of teacher forcings, references and owner tests."""
        return Route.REFERENCE if self.how.reference else Route.PREFILL

    @property
    def block_size(self) -> int:
        """Tokens per KV block: the largest if servers differ, vLLM's usual one if none is known."""
        return largest_block_size(self.deployment) or _USUAL_BLOCK

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that fit into the context of every server after the prompt."""
        limits = [server.max_model_len for server in self.deployment.servers if server.max_model_len is not None]
        return min(limits, default=_UNLIMITED) - len(prompt)

    def outputs(self, history: History) -> list[Operation]:
        """The outputs that can be verified, in the order in which the policy takes them."""
        return _outputs(to_verify(history), self.how)

    def drawn(self, history: History) -> list[Operation]:
        """The outputs that the policy draws at random."""
        outputs = self.outputs(history)
        return outputs[: self.sizes(history, outputs).drawn]

    def suspects(self, history: History) -> list[Operation]:
        """The strangest outputs that were not drawn, as far as the policy takes them (judging/witness.py)."""
        outputs = self.outputs(history)
        sizes, place = self.sizes(history, outputs), _places(outputs)
        strange = (place[name] for name in witnessed(history).strangest if name in place)
        return [outputs[at] for at in strange if at >= sizes.drawn][: sizes.suspects]

    def picked(self, history: History) -> list[Operation]:
        """All outputs that the policy takes, the strange ones first: a budget that runs out leaves ordinary ones."""
        strange = set(witnessed(history).strangest)
        drawn = sorted(self.drawn(history), key=lambda o: o.request.request_id not in strange)
        return [*self.suspects(history), *drawn]

    def sizes(self, history: History, outputs: Sequence[Operation]) -> Sizes:
        """How many requests verify these outputs."""
        return _sizes(self, history, outputs)

    def ledger(self, history: History) -> Ledger:
        """What may still be spent."""
        load = load_cost(history)
        known = prompt_lengths(history)

        def tokens(asked: Request) -> int:
            # A text or a conversation is sent again as it was, so that its tokens are known.
            return known.get(asked.about or "", 0) if _is_text(asked) else len(asked.prompt)

        return Ledger(
            self.how.policy.budget(len(load_of(history)), load.tokens, load.seconds),
            verification_cost(history, self.now and self.now()),
            Rates.of(history),
            tokens,
            lambda asked: self.in_cache(history, asked, tokens(asked), known.get(asked.owner or "")),
        )

    def in_cache(self, history: History, asked: Request, tokens: int, owner_tokens: int | None) -> int:
        """How many tokens of a request's prompt, which has ``tokens``, a cache is expected to have.

        ``owner_tokens``: tokens of the prompt of an owner test's owner; None if they are not known.
        """
        if asked.owner is not None and asked.owner not in kept_by_prefill(self.deployment, history):
            return 0
        return expected_cached(asked.purpose, tokens, owner_tokens, self.block_size)

    def in_flight(self, history: History) -> int:
        """Requests in flight at once."""
        return self.how.concurrency or max(1, min(most_in_flight(history), _MOST_AT_ONCE))

    def forcings(self, output: Operation) -> Iterator[Request]:
        """A teacher forcing of each choice, shortened if the context is too small."""
        who, prompt = output.request.request_id, output.prompt_token_ids or ()
        for number, choice in enumerate(output.ended.choices):
            # One place is left for the token that a forcing generates.
            answer = choice.token_ids[: max(0, self.room(prompt) - 1)]
            if prompt and answer:
                name = f"{who}-teacher{number}"
                yield teacher_forcing(who, prompt, answer, name=name, salt=self.how.salt, route=self.forcing_route)

    def phase(self, name: str, requests: Iterable[Request], history: History, *, watched: bool = False) -> Phases:
        """The requests that were not sent before, as one phase whose counters are not judged."""
        before = prompt_lengths(history)
        new = tuple(request for request in requests if request.request_id not in before)
        return (Phase(name, new, self.in_flight(history), counted=False, watched=watched),) if new else ()


# Every step asks for these several times.
@once
def _outputs(answered: list[Operation], how: VerifyOptions) -> list[Operation]:
    return in_turn(filter(verifiable, answered), how.seed)


@once
def _sizes(verification: Verification, history: History, outputs: Sequence[Operation]) -> Sizes:
    load, lengths = load_cost(history), _lengths(outputs)
    return sizes(
        verification.how.policy,
        lengths.tokens,
        lengths.answered,
        verification.in_flight(history),
        strange=len(lengths.names.intersection(witnessed(history).strangest)),
        exact=witnessed(history).exact,
        beyond=_beyond(through_proxy(history)),
        referenced=lengths.referenced,
        tokens_per_second=load.tokens / load.seconds if load.seconds else math.inf,
    )


@dataclass(frozen=True, slots=True)
class _Lengths:
    """What the sizes need to know of the outputs, which each step of verification asks for anew."""

    names: frozenset[str]
    tokens: list[int]
    answered: int
    """Tokens of all answers."""
    referenced: int


@once
def _lengths(outputs: Sequence[Operation]) -> _Lengths:
    return _Lengths(
        frozenset(o.request.request_id for o in outputs),
        [tokens_of(o) for o in outputs],
        sum(o.ended.output_tokens for o in outputs),
        sum(map(needs_reference, outputs)),
    )


@once
def _beyond(served: list[Operation]) -> int:
    return len(beyond_noise(served))


@once
def _places(outputs: Sequence[Operation]) -> dict[str, int]:
    return {output.request.request_id: place for place, output in enumerate(outputs)}


def _is_text(request: Request) -> bool:
    return isinstance(request.prompt, str) or any(not isinstance(token, int) for token in request.prompt[:1])
