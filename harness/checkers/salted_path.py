"""Whether the way of the load's requests, through the proxy, keeps cache salts apart.

Told by one prompt that was asked under two salts (workloads/salts.py), by the servers' counters around the second: what
prefill took from its caches then, and decode from its own, had been cached under the first.
"""

from collections.abc import Iterator, Mapping

from harness.checkers.memo import once
from harness.checkers.watched import grown
from harness.facts import Deployment, Role
from harness.history import History, Operation, Outcome
from harness.scenario import Route

_OTHER = "path-other"
# As workloads/salts.py names the request.
_CACHES = {Role.PREFILL: ("local_cache_hit", "external_kv_transfer"), Role.DECODE: ("local_cache_hit",)}
# Counters of tokens that a request through the proxy takes from caches: decode's other tokens come from prefill.


@once
def dropped_on_the_way(deployment: Deployment, history: History) -> Mapping[str, int]:
    """Tokens that each server found of a prompt that the proxy was asked for under a new salt; none where it is 0."""
    asked = next((o for o in history.operations(route=Route.PROXY) if _is_test(o)), None)
    return {} if asked is None else dict(_found(deployment, history, asked))


def _is_test(operation: Operation) -> bool:
    inquiry = operation.request.inquiry
    return operation.request.tests_salts and inquiry is not None and inquiry.under == _OTHER


def _found(deployment: Deployment, history: History, asked: Operation) -> Iterator[tuple[str, int]]:
    if asked.outcome is not Outcome.OK:
        return
    tokens = len(asked.request.prompt)
    for role, counters in _CACHES.items():
        grew = {
            one.name: grown(history, asked.sent.scenario, asked.sent.phase, one.name) for one in deployment.of(role)
        }
        if sum(one.of("prompt_tokens") or 0 for one in grew.values()) != tokens:
            continue  # somebody else asked, too, or it went elsewhere
        for name, one in grew.items():
            if hit := sum(one.of(counter) or 0 for counter in counters):
                yield name, int(hit)
