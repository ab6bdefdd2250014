"""Whether the way of the load's requests, through the proxy, keeps cache salts apart.

It is seen in one prompt that was asked under two salts (:mod:`harness.verify.asking.salt_test`), and in the servers'
counters around the second request: what prefill
took from its caches then, and decode from its own, had been cached under the first.
"""

from collections.abc import Iterator, Mapping

from harness.facts import Deployment, Role
from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.observe.watched import grown
from harness.scenario import Condition, Route

_CACHES = {Role.PREFILL: ("local_cache_hit", "external_kv_transfer"), Role.DECODE: ("local_cache_hit",)}
# Counters of tokens that a request through the proxy takes from caches: decode's other tokens come from prefill.


@once
def dropped_on_the_way(deployment: Deployment, history: History) -> Mapping[str, int]:
    """Tokens that each server found of a prompt that the proxy was asked for under a new salt; none where it is 0."""
    asked = next((o for o in history.operations(route=Route.PROXY) if _is_test(o)), None)
    return {} if asked is None else dict(_found(deployment, history, asked))


def _is_test(operation: Operation) -> bool:
    return operation.request.condition is Condition.SALT_PROXY_OTHER


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
