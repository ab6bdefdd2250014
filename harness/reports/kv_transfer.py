"""The ``kv_transfer`` part of result.json: the sources of each role's prompt tokens, and the bytes transferred.

The values are sums of the checks' comparisons of the counters ``local_compute``, ``local_cache_hit`` and
``external_kv_transfer`` (tokens), ``nixl_bytes``, ``offload_load_bytes``, ``offload_store_bytes``,
``nixl_failed_transfers`` and ``nixl_expired``. A counter that no check compared is null.
"""

from collections.abc import Sequence
from typing import Any

from harness.checkers.token_sources import SOURCES
from harness.facts import Deployment, Role
from harness.reports.counters import total_expected, total_observed
from harness.verdict import Bounds, Comparison, Judgement


def kv_transfer(deployment: Deployment, judgement: Judgement) -> dict[str, Any]:
    """Sums over phases and over a role's servers; expected is a number, or ``{"min": …, "max": …}``."""
    by_role = {role: _of_role(deployment, judgement.comparisons, role) for role in Role}
    every = judgement.comparisons
    return {
        **{role.value: {name: _observed(parts, name) for name in SOURCES} for role, parts in by_role.items()},
        "expected": {role.value: {name: _expected(parts, name) for name in SOURCES} for role, parts in by_role.items()},
        "nixl_bytes": _both(every, "nixl_bytes"),
        "offload_bytes": {"load": _both(every, "offload_load_bytes"), "store": _both(every, "offload_store_bytes")},
        "failed_transfers": _observed(every, "nixl_failed_transfers"),
        "expired_requests": _observed(every, "nixl_expired"),
    }


def json_bounds(bounds: Bounds | None) -> int | dict[str, int] | None:
    """A number if only one value is right, otherwise ``{"min": …, "max": …}``."""
    if bounds is None:
        return None
    return bounds.low if bounds.exact else {"min": bounds.low, "max": bounds.high}


def json_number(value: float | None) -> float | None:
    """The value as an integer, if it is one."""
    return int(value) if value is not None and float(value).is_integer() else value


def _of_role(deployment: Deployment, comparisons: Sequence[Comparison], role: Role) -> list[Comparison]:
    return [part for part in comparisons if role in [server.role for server in deployment.named(part.server)]]


def _named(parts: Sequence[Comparison], counter: str) -> list[Comparison]:
    return [part for part in parts if part.counter == counter]


def _observed(parts: Sequence[Comparison], counter: str) -> float | None:
    return json_number(total_observed(_named(parts, counter)))


def _expected(parts: Sequence[Comparison], counter: str) -> int | dict[str, int] | None:
    return json_bounds(total_expected(_named(parts, counter)))


def _both(parts: Sequence[Comparison], counter: str) -> dict[str, Any]:
    return {"observed": _observed(parts, counter), "expected": _expected(parts, counter)}
