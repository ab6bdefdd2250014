"""Whether the path of the load's requests, through the proxy, keeps cache salts apart.

The salt test (:mod:`harness.verify.asking.salt_test`) sends one prompt twice through the proxy, under two salts. The
servers' counters are read around the second request: tokens that prefill took from its caches then, and decode from its
prefix cache, were cached under the first salt.
"""

from collections.abc import Iterator, Mapping

from harness.facts import Deployment, Role
from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.observe.watched import grown
from harness.scenario import Condition, Route

_CACHES = {Role.PREFILL: ("local_cache_hit", "external_kv_transfer"), Role.DECODE: ("local_cache_hit",)}
"""Counters of tokens that a request through the proxy takes from caches. Decode gets other tokens from prefill."""


@once
def dropped_on_the_way(deployment: Deployment, history: History) -> Mapping[str, int]:
    """Cached tokens of a prompt that was sent through the proxy under a new salt, by server; only servers with any."""
    found = history.operations(route=Route.PROXY)
    second = next((one for one in found if one.request.condition is Condition.SALT_PROXY_OTHER), None)
    return {} if second is None else dict(_cached(deployment, history, second))


def _cached(deployment: Deployment, history: History, second: Operation) -> Iterator[tuple[str, int]]:
    if second.outcome is not Outcome.OK:
        return
    tokens = len(second.request.prompt)
    for role, counters in _CACHES.items():
        grew = {
            one.name: grown(history, second.sent.scenario, second.sent.phase, one.name) for one in deployment.of(role)
        }
        # Other sums mean that the servers had other requests, or that the proxy sent this request elsewhere.
        if sum(one.of("prompt_tokens") or 0 for one in grew.values()) == tokens:
            for name, one in grew.items():
                if hit := sum(one.of(counter) or 0 for counter in counters):
                    yield name, int(hit)
